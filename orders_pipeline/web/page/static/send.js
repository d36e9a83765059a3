// A file is dropped, chosen or pasted, checked, and then sent; until then it is nowhere but here.

import { complain, language, newKey, say } from "./page.js";

const found = (id) => document.getElementById(id);
const TRIES = 5;
const AGAIN_MS = 4000;
const choose = found("choose");

if (choose) {
  const drop = found("drop");
  const input = found("file");
  const busy = found("busy");
  const busyText = found("busy-text");
  const bytes = found("bytes");
  const trouble = found("trouble");
  const checked = found("checked");
  const client = found("client");
  let file = null;

  const address = (path, more = {}) => {
    const query = new URLSearchParams({ name: file.name, ...(client && { client: client.value }), ...more });
    return `${path}?${query}`;
  };

  const working = (text) => {
    busy.hidden = text === null;
    if (text !== null) {
      busyText.textContent = text;
      say(text);
    }
    bytes.removeAttribute("value");
  };

  // With XMLHttpRequest, because fetch does not say how much has been sent.
  const post = (path, headers, whenSent) =>
    new Promise((resolve) => {
      const request = new XMLHttpRequest();
      request.open("POST", path);
      for (const [name, value] of Object.entries({ "Accept-Language": language, ...headers })) {
        request.setRequestHeader(name, value);
      }
      request.upload.onprogress = (event) => {
        if (!event.lengthComputable) return;
        bytes.max = event.total;
        bytes.value = event.loaded;
      };
      request.upload.onload = () => working(whenSent);
      request.onloadend = () =>
        resolve(
          request.status
            ? new Response([204, 304].includes(request.status) ? null : request.responseText, { status: request.status })
            : null,
        );
      request.send(file.body);
    });

  const reset = () => {
    file = null;
    input.value = "";
    checked.replaceChildren();
    trouble.hidden = true;
    choose.hidden = false;
  };

  const check = async (name, body) => {
    if (client && !client.reportValidity()) return;
    reset();
    file = { name, body };
    choose.hidden = true;
    working(busyText.dataset.uploading);
    const headers = { Accept: "text/html, application/problem+json" };
    let response = await post(address("/check"), headers, busyText.dataset.checking);
    for (let tries = 0; response?.status === 503 && tries < TRIES; tries += 1) {
      working(trouble.dataset.busy);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
      response = await post(address("/check"), headers, busyText.dataset.checking);
    }
    working(null);
    if (!response?.ok) {
      await complain(trouble, response);
      choose.hidden = false;
      return;
    }
    const part = new DOMParser().parseFromString(await response.text(), "text/html");
    checked.replaceChildren(...part.body.childNodes);
    found("check-title").focus();
  };

  const send = async (actions) => {
    const { sha256, rows, key, client: checkedFor } = actions.dataset;
    const digest = btoa(String.fromCharCode(...sha256.match(/../g).map((pair) => parseInt(pair, 16))));
    for (const button of actions.querySelectorAll("button")) button.disabled = true;
    trouble.hidden = true;
    found("not-sent").hidden = true;
    working(busyText.dataset.uploading);
    const headers = { "Idempotency-Key": key || newKey(), "Content-Digest": `sha-256=:${digest}:` };
    const response = await post(address("/v1/batches", { row_count: rows, client: checkedFor }), headers, busyText.dataset.sending);
    working(null);
    if (response?.ok) {
      const batch = await response.json();
      location.assign(`/b/${encodeURIComponent(batch.batch_id)}`);
      return;
    }
    await complain(trouble, response);
    found("not-sent").hidden = false;
    for (const button of actions.querySelectorAll("button")) button.disabled = false;
  };

  const take = (given) => given && check(given.name, given);

  input.addEventListener("change", () => take(input.files[0]));
  for (const name of ["dragenter", "dragover"]) {
    drop.addEventListener(name, (event) => {
      event.preventDefault();
      drop.classList.add("over");
    });
  }
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
  // a file that is dropped beside the place for it is not opened instead of the page
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

  found("paste").addEventListener("submit", (event) => {
    event.preventDefault();
    const area = found("pasted");
    const now = new Date().toLocaleString("sv-SE", { timeZone: "Asia/Tokyo" }).replace(/\D/g, "");
    check(`${area.dataset.name}-${now}.csv`, new Blob([fromTable(area.value)], { type: "text/csv" }));
  });

  checked.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-do]");
    if (button?.dataset.do === "send") send(button.parentElement);
    if (button?.dataset.do === "discard") {
      reset();
      input.focus();
    }
    if (button?.dataset.do === "fix") {
      choose.hidden = false;
      found("fix-hint").hidden = false;
      if (found("each")) found("each").open = true;
      found("problems-title").focus();
    }
  });
}

// What a spreadsheet copies: cells between tabs, quoted where they hold tabs, quotes or line ends. Only the tabs between
// cells become commas; cells stay as they are.
function fromTable(text) {
  const quoted = (cell) => (/[",\r\n]/.test(cell) && !/^"(?:[^"]|"")*"$/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell);
  let line = [];
  const lines = [line];
  for (const [whole, cell, end] of text.matchAll(/("(?:[^"]|"")*"|[^\t\r\n]*)(\t|\r\n|\r|\n|$)/g)) {
    if (whole === "") break;
    line.push(quoted(cell));
    if (end !== "\t") lines.push((line = []));
  }
  return lines
    .filter((cells) => cells.length)
    .map((cells) => `${cells.join(",")}\r\n`)
    .join("");
}
