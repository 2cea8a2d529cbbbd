// How the page talks to its gateway: requests with the token, and the stream of events, resumed by id.

let token = sessionStorage.getItem("token");
let asking = null;

export class Refused extends Error {
  constructor(status, answer) {
    super(`${answer.reason_code}: ${answer.detail}`);
    this.status = status;
    this.answer = answer;
  }
}

function headers(more) {
  return token ? { ...more, authorization: `Bearer ${token}` } : { ...more };
}

/** Asks the person for a token, once for all requests that wait for it. */
function ask() {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("ask");
    dialog.addEventListener("close", () => {
      token = document.getElementById("token").value.trim();
      sessionStorage.setItem("token", token);
      document.getElementById("token").value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

/** One request; its answer as JSON. `also` is a status whose answer is wanted too. */
export async function request(method, path, { body, also } = {}) {
  for (;;) {
    const response = await fetch(path, { method, headers: headers(), body: body && JSON.stringify(body) });
    const answer = await response.json().catch(() => ({ reason_code: "?", detail: response.statusText }));
    if (response.ok || response.status === also) return answer;
    if (response.status === 401) {
      await ask();
      continue;
    }
    throw new Refused(response.status, answer);
  }
}

/** Follows events for ever. `on.event(name, record)`, `on.state(live)`, `on.gap()` when events were missed. */
export async function follow(names, on) {
  let last = null;
  let pause = 500;
  for (;;) {
    try {
      const more = last ? { "last-event-id": last } : {};
      const response = await fetch(`/v1/events?event=${names.join(",")}`, { headers: headers(more) });
      if (response.status === 401) await ask();
      if (!response.ok) throw new Error(response.statusText);
      on.state(true);
      pause = 500;
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        text += value;
        const messages = text.split("\n\n");
        text = messages.pop();
        for (const message of messages) {
          const fields = parse(message);
          if (fields.id) last = fields.id;
          if (fields.event === "gap") on.gap();
          else if (fields.id && fields.data) on.event(fields.event, JSON.parse(fields.data));
        }
      }
    } catch {
      // Away: the next try says whether it is back.
    }
    on.state(false);
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 10000);
  }
}

function parse(message) {
  const fields = {};
  for (const line of message.split("\n")) {
    const at = line.indexOf(":");
    if (at <= 0) continue;
    const name = line.slice(0, at);
    const value = line.slice(at + 1).replace(/^ /, "");
    fields[name] = name in fields ? `${fields[name]}\n${value}` : value;
  }
  return fields;
}
