// What scripts of several pages share: asking the server, saying something aloud, showing what went wrong.

export const language = document.documentElement.lang;

export function say(text) {
  document.getElementById("say").textContent = text;
}

export async function ask(address, options = {}) {
  const headers = { "Accept-Language": language, ...options.headers };
  return fetch(address, { ...options, headers, credentials: "same-origin" });
}

export async function parse(response) {
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

// A key that is new each time; randomUUID is there only where there is TLS.
// A reason is kept as one line, however it was typed.
export function oneLine(text) {
  return text.replace(/\s+/g, " ").trim();
}

export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Say what went wrong, in the server's words if it had any; a batch that exists already is led to.
export async function complain(place, response) {
  let problem = {};
  try {
    problem = response ? await response.json() : {};
  } catch {
    // no words of the server's
  }
  const isUnsupported = problem.type?.endsWith("/unsupported-media-type") && place.dataset.unsupported;
  place.replaceChildren(isUnsupported || problem.title || place.dataset.failed);
  if (problem.batch_id) {
    const link = document.createElement("a");
    link.href = `/b/${encodeURIComponent(problem.batch_id)}`;
    link.textContent = place.dataset.see;
    place.append(" ", link);
  }
  place.hidden = false;
  place.scrollIntoView({ block: "nearest" });
}
