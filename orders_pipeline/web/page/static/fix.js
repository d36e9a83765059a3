// Cells of rejected rows are changed here, checked by the server, and those rows sent that can be taken: also rows that
// nobody changed, where another row was what was wrong with them. What was typed is kept in this page alone, over all pages
// of rows, until it is sent.

import { ask, complain, newKey, parse } from "./page.js";

const found = (id) => document.getElementById(id);
const fix = found("fix");
const edits = new Map(); // "row:cell" -> {row, cell, old, new}
const kept = new Set(); // rows that are right as they are, of several that keep each other back
const done = []; // what is undone first is last: lists of [key, edit before]
let closed = []; // rows that are left out by what they say now, and wait no more
let verdicts = {}; // row -> what is wrong with it as it would be sent: rows that are changed, and others that can be taken now
let checks = 0; // the answer to the last one counts
let since = []; // rows that were changed after it was asked: what it finds is not about them
let isSent = false;

const keyOf = (row, cell) => `${row}:${cell}`;
const rowsOf = (changes) => changes.map(([key]) => Number(key.split(":")[0]));
const isCell = (element) => element.matches("td input[data-cell]");
const changedRows = () => new Set([...edits.values()].map((edit) => edit.row));
const goodRows = () => Object.keys(verdicts).map(Number).filter((row) => verdicts[row].length === 0);
const inWords = (number) => number.toLocaleString(document.documentElement.lang);

function note(changes) {
  const before = changes.map(([key]) => [key, edits.get(key)]);
  for (const [key, edit] of changes) {
    if (!edit || edit.new === edit.old) edits.delete(key);
    else edits.set(key, edit);
  }
  done.push(before);
  forget(rowsOf(changes));
  show();
}

// Of rows that are changed nothing is known any more, nor of those that were judged beside them as they are, nor what all
// that would be sent comes to.
function forget(rows) {
  const changed = changedRows();
  for (const row of Object.keys(verdicts)) if (!changed.has(Number(row))) delete verdicts[row];
  for (const row of rows) delete verdicts[row];
  since.push(...rows);
  found("send").hidden = true;
}

function show() {
  for (const input of fix.querySelectorAll("td input[data-cell]")) {
    const row = input.closest("tr").dataset.row;
    const edit = edits.get(keyOf(row, input.dataset.cell));
    const value = edit ? edit.new : input.defaultValue;
    if (input.value !== value && (input !== document.activeElement || edit)) input.value = value;
    input.closest("td").classList.toggle("changed", Boolean(edit));
  }
  const isOfChanged = changedRows();
  for (const line of fix.querySelectorAll("tr[data-row]")) {
    const verdict = verdicts[line.dataset.row];
    line.classList.toggle("is-good", verdict?.length === 0);
    line.classList.toggle("is-bad", verdict?.length > 0);
    const isChanged = isOfChanged.has(Number(line.dataset.row));
    const isKept = kept.has(Number(line.dataset.row)) && !isChanged;
    line.querySelector("button.keep")?.setAttribute("aria-pressed", String(isKept));
    const { waits, bad, good, asIs } = fix.dataset;
    const isClosed = closed.includes(Number(line.dataset.row));
    const judged = verdict?.length ? bad : isClosed ? fix.dataset.closed : isChanged ? good : asIs;
    line.querySelector(".row-state").textContent = verdict ? judged : isChanged ? waits : isKept ? fix.dataset.kept : "";
    line.classList.toggle("is-changed", isChanged && !verdict);
    sayWhatIsWrong(line, verdict);
  }
  showKinds();
  const rows = isOfChanged.size;
  const { unchanged, changed, changedOne } = fix.dataset;
  found("count").textContent = rows === 0 ? unchanged : rows === 1 ? changedOne : changed.replace("#", inWords(rows));
  found("check").disabled = false;
  found("undo").disabled = done.length === 0;
}

// Where the check has found something else than before, what was said before is gone.
function sayWhatIsWrong(line, verdict) {
  const says = new Map();
  for (const error of verdict ?? []) {
    const cell = line.querySelector(`input[data-cell="${Number(error.cell)}"]`);
    const place = cell?.parentElement.querySelector(".says") ?? line.querySelector(".row-state");
    says.set(place, [...(says.get(place) ?? []), error.says]);
  }
  for (const [place, all] of says) place.textContent = all.join(" ");
  for (const place of line.querySelectorAll(".says, .row-says")) place.hidden = Boolean(verdict) && !says.has(place);
  for (const input of line.querySelectorAll("input[aria-invalid]")) {
    input.ariaInvalid = String(!verdict || says.has(input.parentElement.querySelector(".says")));
  }
}

// What was wrong at first is listed with how many rows it is left in, and below it what the check has found besides.
function showKinds() {
  const list = fix.querySelector(".groups");
  for (const each of list.querySelectorAll("li.is-new")) each.remove();
  const errors = Object.values(verdicts).flat();
  const known = new Set();
  for (const each of list.children) {
    const { kind, rows } = each.dataset;
    const all = rows.split(" ");
    const left = all.filter((row) => !verdicts[row] || verdicts[row].some((error) => error.kind === kind)).length;
    each.querySelector(".left").textContent = left === all.length ? "" : fix.dataset.left.replace("#", inWords(left));
    each.classList.toggle("is-done", left === 0);
    known.add(kind);
  }
  for (const kind of new Set(errors.map((error) => error.kind))) {
    if (known.has(kind)) continue;
    const same = errors.filter((error) => error.kind === kind);
    const [item, line, column] = ["li", "p", "strong"].map((name) => document.createElement(name));
    item.className = "is-new";
    column.textContent = same[0].column;
    line.append(column, ` × ${inWords(same.length)} ${same[0].says}`);
    item.append(line);
    list.append(item);
  }
}

function typed(input) {
  const row = Number(input.closest("tr").dataset.row);
  const cell = Number(input.dataset.cell);
  const isHidden = "hidden" in input.dataset;
  const key = keyOf(row, cell);
  const edit = { row, cell, old: isHidden ? null : input.defaultValue, new: input.value };
  if ((edits.get(key)?.new ?? input.defaultValue) === input.value) return;
  note([[key, isHidden && input.value === "" ? undefined : edit]]);
}

// Cells are written that say what is decided on a row, or are what they were again.
function decide(line, cells) {
  const row = Number(line.dataset.row);
  note(cells.map(([cell, value]) => {
    const input = line.querySelector(`input[data-cell="${Number(cell)}"]`);
    const old = !input || "hidden" in input.dataset ? null : input.defaultValue;
    return [keyOf(row, cell), value === null ? undefined : { row, cell, old, new: value }];
  }));
}

async function post(rows, isDryRun) {
  const [wanted, changed] = [new Set(rows), changedRows()];
  const unchanged = [...(isDryRun ? kept : wanted)].filter((row) => !changed.has(row));
  const body = JSON.stringify({ edits: [...edits.values()].filter((edit) => wanted.has(edit.row)), unchanged });
  const headers = { "Content-Type": "application/json", "Idempotency-Key": newKey() };
  found("trouble").hidden = true;
  return ask(`${fix.dataset.post}${isDryRun ? "?dry_run=true" : ""}`, { method: "POST", headers, body }).catch(() => null);
}

function takeTyped() {
  if (isCell(document.activeElement)) typed(document.activeElement);
}

async function check() {
  takeTyped();
  const [number, place] = [(checks += 1), document.activeElement];
  since = [];
  found("check").disabled = true;
  found("count").textContent = fix.dataset.checking;
  const response = await post(changedRows(), true);
  const result = response?.ok ? await response.json() : null;
  if (number !== checks) return;
  takeTyped();
  if (result === null) {
    show();
    await failed(response);
    return;
  }
  verdicts = result.rows;
  closed = result.closed;
  if (since.length) {
    forget([...since]);
    show();
    found("count").textContent += ` – ${fix.dataset.again}`;
    return;
  }
  show();
  offer(result, [place, document.body].includes(document.activeElement));
}

// Who has gone on to another cell by now is left there.
function offer(result, isWaitedFor) {
  found("count").textContent = result.refusal ?? result.says;
  const send = found("send");
  send.hidden = result.good === 0;
  send.textContent = result.send;
  const bad = Object.keys(verdicts).find((row) => verdicts[row].length > 0);
  if (!isWaitedFor) return;
  if (result.good) send.focus();
  else if (bad) fix.querySelector(`tr[data-row="${Number(bad)}"] input`)?.focus();
}

async function send() {
  fix.inert = true; // what is typed now would be in nothing that is sent
  const response = await post(goodRows(), false);
  if (response?.ok) {
    isSent = true;
    location.assign(`/b/${encodeURIComponent((await response.json()).batch_id)}`);
    return;
  }
  fix.inert = false;
  await failed(response);
}

async function failed(response) {
  found("trouble").dataset.failed = fix.dataset.failed;
  await complain(found("trouble"), response);
  found("check").disabled = false;
}

// Cells that are right can be changed too, once somebody asks for the whole row; its other columns are shown then.
function addEditButtons() {
  for (const line of fix.querySelectorAll("tr[data-row]")) {
    const isOpen = !fix.querySelector("a[data-all]") && !line.querySelector("td[data-cell]");
    if (isOpen || line.querySelector(".misshapen, button.whole")) continue;
    const button = document.createElement("button");
    button.className = "plain edit whole";
    button.textContent = fix.dataset.edit;
    button.addEventListener("click", () => editRow(line));
    line.querySelector(".row-state").before(button); // which does not move it when it comes to say something
  }
}

async function editRow(line) {
  const all = fix.querySelector("a[data-all]");
  if (all) await turn(all);
  if (!fix.querySelector("a[data-all]")) openRow(fix.querySelector(`tr[data-row="${Number(line.dataset.row)}"]`));
}

function openRow(line) {
  for (const cell of line.querySelectorAll("td[data-cell]")) {
    if (cell.querySelector("span") || /[\r\n]/.test(cell.textContent)) continue; // hidden, or of several lines
    const input = document.createElement("input");
    input.dataset.cell = cell.dataset.cell;
    input.defaultValue = cell.textContent;
    const header = fix.querySelector(`th[data-column="${Number(cell.dataset.cell)}"]`);
    input.setAttribute("aria-label", `${line.dataset.row}, ${header.textContent}`);
    cell.replaceChildren(input);
    cell.removeAttribute("data-cell");
  }
  line.querySelector("td input")?.focus();
  if (!fix.querySelector("a[data-all]")) line.querySelector("button.whole")?.remove();
}

// Other rows and columns are shown in this same page, so that nothing typed is lost.
async function turn(link) {
  const response = await ask(link.href, { headers: { Accept: "text/html" } }).catch(() => null);
  if (!response?.ok || response.redirected) {
    await failed(response);
    return;
  }
  const page = await parse(response);
  for (const kind of ["#rows", ".switches", "nav.pages"]) {
    const old = fix.querySelector(kind);
    const next = page.querySelector(`#fix ${kind}`);
    if (old && next) old.replaceWith(document.importNode(next, true));
  }
  history.replaceState(null, "", link.href);
  addEditButtons();
  reopen();
  show();
  found("rows-title").focus();
}

// Rows of which right cells were changed are open again.
function reopen() {
  for (const edit of edits.values()) {
    const line = fix.querySelector(`tr[data-row="${edit.row}"]`);
    if (line?.querySelector(`td[data-cell="${edit.cell}"]`)) openRow(line);
  }
}

fix.addEventListener("change", (event) => {
  if (isCell(event.target)) typed(event.target);
});
fix.addEventListener("click", (event) => {
  const keep = event.target.closest("button.keep");
  if (keep) {
    const row = Number(keep.closest("tr").dataset.row);
    if (!kept.delete(row)) kept.add(row);
    forget([row]);
    show();
  }
  const decision = event.target.closest("button.decide");
  if (decision) decide(decision.closest("tr"), JSON.parse(decision.dataset.cells));
  const link = event.target.closest("a[data-keep]");
  if (link) {
    event.preventDefault();
    turn(link);
  }
});
fix.addEventListener("submit", (event) => {
  const form = event.target.closest("form.replace");
  if (!form) return;
  event.preventDefault();
  const { cell, old, rows } = form.dataset;
  const value = form.querySelector("input").value;
  note(rows.split(" ").map((row) => [keyOf(row, cell), { row: Number(row), cell: Number(cell), old, new: value }]));
});
fix.addEventListener("keydown", (event) => {
  if (event.isComposing || !isCell(event.target)) return;
  const input = event.target;
  if (event.key === "Escape") {
    input.value = edits.get(keyOf(input.closest("tr").dataset.row, input.dataset.cell))?.new ?? input.defaultValue;
  } else if (event.key === "Enter") {
    event.preventDefault();
    if (event.ctrlKey || event.metaKey) {
      check();
      return;
    }
    typed(input);
    const column = [...fix.querySelectorAll(`td input[data-cell="${Number(input.dataset.cell)}"]`)];
    column[column.indexOf(input) + 1]?.focus();
  }
});
found("check").addEventListener("mousedown", (event) => event.preventDefault()); // a cell that is left moves what is below it
found("check").addEventListener("click", check);
found("send").addEventListener("click", send);
found("undo").addEventListener("click", () => {
  const changes = done.pop() ?? [];
  for (const [key, before] of changes) {
    if (before) edits.set(key, before);
    else edits.delete(key);
  }
  forget(rowsOf(changes));
  show();
});
window.addEventListener("beforeunload", (event) => {
  if ((edits.size || kept.size) && !isSent) event.preventDefault();
});
addEditButtons();
show();
