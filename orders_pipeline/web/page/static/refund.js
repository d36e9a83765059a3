// A refund is confirmed as it is shown: with the digest of its plan, so that nothing else is refunded.

import { ask, complain, newKey, oneLine } from "./page.js";

const form = document.getElementById("refund");
const trouble = document.getElementById("trouble");
const chosen = document.getElementById("orders");
const plan = document.getElementById("plan");
let key = newKey(); // the same as long as the same is asked for, so that it is refunded once

// What other orders come to has to be shown before it can be confirmed.
function showPlan() {
  if (plan) plan.hidden = chosen.value !== chosen.defaultValue;
}

chosen.addEventListener("input", showPlan);
window.addEventListener("pageshow", showPlan); // a browser may put back what was typed
form?.addEventListener("input", () => (key = newKey()));
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const { post, back, confirm, orders } = form.dataset;
  const button = form.querySelector("button");
  button.disabled = true;
  trouble.hidden = true;
  const reason = document.getElementById("reason").value;
  const body = JSON.stringify({ reason: oneLine(reason), confirm, ...(orders && { orders: orders.split(" ") }) });
  const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
  const response = await ask(post, { method: "POST", headers, body }).catch(() => null);
  if (response?.ok) {
    location.assign(back);
    return;
  }
  button.disabled = false;
  await complain(trouble, response);
});
