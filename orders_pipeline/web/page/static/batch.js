// Keeps what is shown of a batch as it is: the server tells that something has changed, and its parts are shown anew.

import { ask, complain, newKey, oneLine, parse, say } from "./page.js";

const found = (id) => document.getElementById(id);
const batch = found("batch");
const POLL_MS = 3000;
let source = null;
let timer = null;
let isAsking = false;
let again = false;

async function refresh() {
  if (isAsking) {
    again = true;
    return;
  }
  isAsking = true;
  try {
    const response = await ask(location.pathname, { headers: { Accept: "text/html" } });
    if (response.redirected || !response.ok) throw new Error("not shown");
    show(await parse(response));
    found("lost").hidden = true;
  } catch {
    found("lost").hidden = false;
  } finally {
    isAsking = false;
    if (again) {
      again = false;
      refresh();
    }
  }
}

function show(page) {
  const milestone = found("head").dataset.milestone;
  const focused = document.activeElement?.id;
  for (const part of batch.querySelectorAll("[data-part]")) {
    const next = page.getElementById(part.id);
    if (next && next.outerHTML !== part.outerHTML) part.replaceWith(document.importNode(next, true));
  }
  if (focused && document.activeElement?.id !== focused) found(focused)?.focus();
  if (found("head").dataset.milestone !== milestone) {
    const bars = [...batch.querySelectorAll(".bar")].map((bar) => `${bar.children[0].textContent} ${bar.children[2].textContent}`);
    say([found("says").textContent, ...bars].join(" "));
  }
  const next = page.getElementById("batch").dataset;
  batch.dataset.events = next.events;
  batch.toggleAttribute("data-refunding", "refunding" in next);
  if (!batch.dataset.events) stop();
}

function stop() {
  source?.close();
  source = null;
  clearTimeout(timer);
}

function follow() {
  stop();
  if (document.hidden) return;
  if (!batch.dataset.events) {
    if ("refunding" in batch.dataset) lookAgain(); // of refunds there are no events
    return;
  }
  source = new EventSource(batch.dataset.events);
  source.addEventListener("open", () => (found("lost").hidden = true));
  source.addEventListener("progress", refresh);
  source.addEventListener("end", async () => {
    stop();
    await refresh();
  });
  source.addEventListener("error", () => {
    if (source?.readyState !== EventSource.CLOSED) {
      refresh(); // the browser comes back by itself; until then, what is shown says whether the server is there
      return;
    }
    stop();
    lookAgain();
  });
}

function lookAgain() {
  timer = setTimeout(async () => {
    await refresh();
    follow();
  }, POLL_MS);
}

async function tell(command, body) {
  found("trouble").hidden = true;
  const headers = { "Idempotency-Key": newKey(), ...(body && { "Content-Type": "application/json" }) };
  const response = await ask(`${batch.dataset.self}/${command}`, { method: "POST", headers, body }).catch(() => null);
  if (!response?.ok) await complain(found("trouble"), response);
  await refresh();
  follow();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) stop();
  else if (batch.dataset.events || "refunding" in batch.dataset) refresh().then(follow);
});

batch.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.ask) found(button.dataset.ask).showModal();
  if ("close" in button.dataset) button.closest("dialog").close();
  if (button.dataset.post) {
    button.closest("dialog")?.close();
    await tell(button.dataset.post);
  }
});

batch.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  form.closest("dialog")?.close();
  const given = [...new FormData(form)].map(([name, value]) => [name, oneLine(value)]);
  await tell(form.dataset.post, JSON.stringify(Object.fromEntries(given.filter(([, value]) => value))));
});

follow();
