// The dashboard: state of the gateway, kept up to date by its events and a look every other second.

import { Refused, follow, request } from "/page/gateway.js";
import { bars, lines } from "/page/charts.js";

const EVENTS = [
  "gateway_started", "gateway_stopped", "source_up", "source_down", "source_stale", "source_leads",
  "source_tips", "template_judged",
  "policy_set_swapped", "policy_set_unchanged", "policy_set_rolled_back", "policy_swap_refused",
  "config_reloaded", "config_restart_needed", "work_released", "tip_changed", "tip_served", "gate_held", "gate_resumed",
  "gate_expired", "mode_changed", "work_failed", "forward_status", "ledger_failed", "block_found",
];
const MAX = 300;
const PAGE = 50;
const state = { overview: null, history: [], templates: [], steps: [], policies: null, miners: [], shown: PAGE, compared: false };

const $ = (id) => document.getElementById(id);
const put = (id, words) => { if ($(id).textContent !== words) $(id).textContent = words; };

/** An element with attributes and children; text is text. */
function h(kind, attributes = {}, ...children) {
  const element = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
const short = (hash) => (hash ? `${hash.slice(0, 8)}…${hash.slice(-8)}` : "–");
const count = (number) => Math.round(number).toLocaleString("en");

function scaled(number, units, digits = 3) {
  let index = 0;
  while (number >= 1000 && index < units.length - 1) { number /= 1000; index += 1; }
  return `${number >= 100 || number === 0 ? Math.round(number) : number.toPrecision(digits)} ${units[index]}`;
}
const hashrate = (n) => scaled(n, ["H/s", "kH/s", "MH/s", "GH/s", "TH/s", "PH/s", "EH/s", "ZH/s"]);
const bitcoin = (sat) => (Math.abs(sat) >= 1e6 ? `${(sat / 1e8).toPrecision(4)} BTC` : `${count(sat)} sat`);
const coins = (sat) => `${(sat / 1e8).toFixed(5)} BTC`;
const difficulty = (n) => (n >= 1000 ? scaled(n, ["", "k", "M", "G", "T", "P"]).trim() : n.toPrecision(3));

function age(ms) {
  if (ms === null || ms === undefined) return "–";
  const seconds = ms / 1000;
  if (seconds < 1) return `${Math.round(ms)} ms`;
  if (seconds < 90) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${Math.round(seconds / 86400)} days`;
}

let noticed;
function notice(words) {
  put("notice", words);
  clearTimeout(noticed);
  noticed = setTimeout(() => put("notice", ""), 8000);
}

// ---------------------------------------------------------------- the gate

const PHASES = {
  following: "Miners work on the newest tip.",
  switching: "A new tip: the verdict on its first template is awaited.",
  holding: "No work on the tip was admitted. Miners keep their last job.",
  expired: "Miners were disconnected and are not served.",
};

function drawOverview() {
  const { gate, now, readiness, template_age_ms, version, started_ms } = state.overview;
  const shadow = gate.mode === "shadow";
  $("phase").dataset.phase = shadow ? (readiness.ready ? "following" : "switching") : gate.phase;
  put("phase-name", shadow ? "Shadow" : gate.phase[0].toUpperCase() + gate.phase.slice(1));
  const since = age(Math.max(0, Date.now() - gate.phase_since_ms));
  put("phase-words", shadow ? "Templates are judged and written down. Nobody is served." : `${PHASES[gate.phase]} For ${since.replaceAll(" ", "\u00a0")}.`);
  const said = [...readiness.troubles.map((t) => [t, "tone-bad"]), ...readiness.warnings.map((t) => [t, "tone-warn"])];
  $("troubles").replaceChildren(...said.map(([t, tone]) => h("li", {}, h("b", { class: `${tone} mono` }, t.reason_code), ` ${t.meaning}`)));
  put("version", version);
  put("mode", gate.mode);
  put("height", gate.job ? count(gate.job.height) : state.templates[0] ? count(state.templates[0].height) : "–");
  put("tip", gate.tip ? short(gate.tip) : "unknown");
  put("uptime", age(Date.now() - started_ms));
  put("hashrate", hashrate(now.hashrate));
  put("connections", count(now.connections));
  put("channels", count(now.channels));
  put("backlog", count(now.backlog));
  put("template-age", age(template_age_ms));
  const before = state.history.findLast((sample) => now.time_ms - sample.time_ms >= 55000) ?? state.history[0];
  const minutes = before ? (now.time_ms - before.time_ms) / 60000 : 0;
  put("share-rate", minutes > 0.05 ? count((now.shares_accepted - before.shares_accepted) / minutes) : "–");
  const toggle = $("toggle-mode");
  toggle.disabled = shadow;
  const other = gate.mode === "inline" ? "observe" : "inline";
  if (!shadow) toggle.textContent = `Change to ${other} mode`;
  toggle.dataset.mode = other;
}

// Why work goes out that is the first on its tip.
const firstOnTip = ["prevhash_switched", "prevhash_activated", "coinbase_only_admitted"];

/** What a step says, in words, and its tone. */
function words(step) {
  const tip = (hash) => short(hash);
  switch (step.event) {
    case "work_released":
      return firstOnTip.includes(step.reason)
        ? [`Work on the tip at ${step.height.toLocaleString("en")} after ${step.since_tip_ms} ms${step.held_ms === null ? "" : `, held ${age(step.held_ms)}`}`, "good"]
        : [`Newer work at ${step.height.toLocaleString("en")}`, ""];
    case "tip_changed": return [`New tip ${tip(step.tip)}`, "info"];
    case "tip_served": return [`Last of ${step.connections} miners served after ${(step.since_tip_us / 1000).toFixed(1)} ms`, "good"];
    case "gate_held": return [`Miners are held: ${step.reason}`, "warn"];
    case "gate_resumed": return [`Work resumed, held ${age(step.held_ms)}`, "good"];
    case "gate_expired": return [`Miners disconnected: ${step.reason}`, "bad"];
    case "mode_changed": return [`Mode ${step.from} → ${step.to}`, "info"];
    case "source_up": return [`Source ${step.source} answers: ${step.address}`, "good"];
    case "source_down": return [`Source ${step.source}: ${step.reason}: ${step.detail}`, "bad"];
    case "source_stale": return [`Source ${step.source} is silent`, "bad"];
    case "source_leads": return step.source === null
      ? [`No source can be relied on; ${step.from} gave the templates before`, "bad"]
      : [`Templates from ${step.source}${step.from === null ? "" : `, before from ${step.from}`}: ${step.reason}`, step.reason === "source_failed_over" || step.reason === "source_behind" ? "warn" : "good"];
    case "source_tips": return [`Sources ${step.reason === "source_tips_agree" ? "agree" : "disagree"}: ${step.tips.map((t) => `${t.source} at ${t.height.toLocaleString("en")} ${tip(t.tip)}`).join(", ")}`, step.reason === "source_tips_agree" ? "good" : "bad"];
    case "policy_set_swapped": return [`Policies swapped (${step.trigger}): ${step.policies.join(", ")}`, "info"];
    case "policy_set_rolled_back": return [`Policies rolled back: ${step.policies.join(", ")}`, "info"];
    case "policy_set_unchanged": return ["Policies are the same as before", ""];
    case "policy_swap_refused": return [`Policies refused: ${step.detail}`, "bad"];
    case "config_reloaded": return [`Configuration read again (${step.trigger}): ${step.keys.join(", ")}`, "info"];
    case "config_restart_needed": return [`Waits for a restart: ${step.keys.join(", ")}`, "warn"];
    case "block_found": return [`Block ${step.height.toLocaleString("en")} by ${step.user_identity}: ${step.reason}`, step.reason === "block_submitted" ? "good" : "bad"];
    case "forward_status": return [`Pool: ${step.reason}: ${step.detail}`, step.reason === "forward_retrying" ? "warn" : "good"];
    case "ledger_failed": return [`Ledger: ${step.detail}`, "bad"];
    case "gateway_started": return [`ReserveGrid ${step.version} started in ${step.mode} mode`, "info"];
    default: return [`${step.event}${step.reason ? `: ${step.reason}` : ""}`, ""];
  }
}

function drawTimeline() {
  const shown = state.steps.slice(0, 60);
  $("timeline").replaceChildren(...shown.map((step) => {
    const [text, tone] = words(step);
    return h("li", {}, h("time", { datetime: new Date(step.time_ms).toISOString() }, clock(step.time_ms)), h("span", { class: tone && `tone-${tone}` }, text));
  }));
  bars($("switches"), switches(), "Tip switches: milliseconds from the tip to the last miner");
}

/** The last tip switches, oldest first, from the gate's steps. */
function switches() {
  const list = [];
  let current = null;
  for (const step of state.steps.slice().reverse()) {
    if (step.event === "tip_changed") {
      current = { at: step.time_ms, ms: 0, tone: "good", tip: step.tip, state: "waiting" };
      list.push(current);
    }
    if (!current) continue;
    if (step.event === "gate_held") { current.tone = "warn"; current.ms = Math.max(current.ms, step.since_tip_ms); }
    if (step.event === "gate_expired") { current.tone = "bad"; current.ms = Math.max(current.ms, step.since_tip_ms ?? 0); }
    if (step.event === "work_released" && firstOnTip.includes(step.reason)) {
      current.ms = Math.max(1, step.since_tip_ms);
      if (step.held_ms !== null) current.tone = "warn";
    }
    if (step.event === "tip_served") current.ms = Math.max(current.ms, step.since_tip_us / 1000);
  }
  return list.slice(-48).map((one) => ({
    ...one, tick: clock(one.at), label: `${clock(one.at)} tip ${short(one.tip)}: ${one.ms < 10 ? one.ms.toFixed(1) : Math.round(one.ms)} ms`,
  }));
}

// ---------------------------------------------------------------- verdicts

const OUTCOMES = {
  admitted: ["admitted", "good"], would_reject: ["would be rejected", "warn"], refused: ["rejected", "bad"],
  logged: ["logged", ""], in_use: ["in use", "good"], asked_again: ["asked again", "warn"],
  withdrawn: ["withdrawn", "bad"], superseded: ["superseded", ""],
};

function verdict(judged) {
  let [outcome, tone] = OUTCOMES[judged.enforced] ?? [judged.enforced, ""];
  if (judged.enforced === "logged") [outcome, tone] = judged.verdict.accepted ? ["accepted", "good"] : ["rejected", "bad"];
  const { reason_code: code, reason_detail: detail, policy_context: context } = judged.verdict;
  const pairs = (entries) => h("dl", {}, ...entries.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  const policies = judged.policies.map((policy) => [
    policy.name,
    `${policy.verdict.accepted ? "accepts" : `${policy.verdict.reason_code}: ${policy.verdict.reason_detail}`} · ${(policy.duration_us / 1000).toFixed(2)} ms${policy.fuel === null ? "" : ` · fuel ${count(policy.fuel)}`}`,
  ]);
  const summary = h("summary", {},
    h("span", { class: "badge", "data-tone": tone }, outcome),
    h("span", { class: "what" }, `${count(judged.height)} · ${count(judged.transactions)} tx · ${bitcoin(judged.total_fees)} fees`),
    h("time", { class: "quiet", datetime: new Date(judged.time_ms).toISOString() }, clock(judged.time_ms)),
    code ? h("span", { class: "why" }, h("b", { class: `mono tone-${tone || "warn"}` }, code), ` ${detail ?? ""}${judged.decided_by ? ` — ${judged.decided_by}` : ""}`) : null);
  const rest = h("div", { class: "rest" },
    Object.keys(context).length ? pairs(Object.entries(context).map(([name, value]) => [name, String(value)])) : null,
    h("b", {}, "Policies"), pairs(policies),
    pairs([["template", short(judged.template)], ["builds on", short(judged.previous_block_hash)],
      ["weight", `${(judged.total_weight / 1e6).toFixed(2)} MWU`], ["sigops", count(judged.total_sigops)],
      ["coinbase value", bitcoin(judged.coinbase_value)], ["judged in", `${(judged.duration_us / 1000).toFixed(2)} ms`], ["policy set", short(judged.policy_set)]]));
  return h("details", { class: "card", role: "listitem", "data-seq": judged.seq, "data-code": code ?? "accepted" }, summary, rest);
}

function drawVerdicts() {
  const only = $("only-rejected").checked;
  const list = state.templates.filter((judged) => !only || !judged.verdict.accepted).slice(0, 60);
  const place = $("verdict-list");
  const known = new Map([...place.children].map((card) => [card.dataset.seq, card]));
  const cards = list.map((judged) => known.get(String(judged.seq)) ?? verdict(judged));
  place.replaceChildren(...(cards.length ? cards : [h("p", { class: "empty" }, only ? "No rejection in sight." : "No template was judged yet.")]));
  drawValue();
}

function drawValue() {
  const list = state.templates.slice().reverse();
  const at = (read) => list.map((judged) => [judged.time_ms, read(judged)]);
  const refused = list.filter((judged) => !judged.verdict.accepted);
  const dots = refused.map((judged) => ({ at: judged.time_ms, value: judged.total_fees, label: `${clock(judged.time_ms)} ${judged.verdict.reason_code}` }));
  lines($("fees"), [{ points: at((j) => j.total_fees), kind: "area", name: "fees", tone: "accent" }],
    { label: "Fees of judged templates over time", format: bitcoin, dots, height: 160 });
  lines($("worth"), [{ points: at((j) => j.coinbase_value), kind: "second", name: "subsidy and fees", tone: "info" }],
    { label: "Value of judged templates over time", format: coins, height: 120, floor: null });
}

// ---------------------------------------------------------------- shares and miners

function drawHistory() {
  const list = state.history;
  lines($("hashrate-chart"), [{ points: list.map((s) => [s.time_ms, s.hashrate]), kind: "area", name: "hashrate, five minutes", tone: "accent" }],
    { label: "Hashrate over the last hour", format: hashrate, height: 130 });
  const rate = (read) => list.slice(1).map((s, i) => [s.time_ms, Math.max(0, ((read(s) - read(list[i])) * 60000) / Math.max(1, s.time_ms - list[i].time_ms))]);
  lines($("share-chart"), [
    { points: rate((s) => s.shares_accepted), kind: "area", name: "accepted a minute", tone: "accent" },
    { points: rate((s) => s.shares_forwarded), kind: "second", name: "taken by the pool", tone: "info" },
    { points: rate((s) => s.shares_rejected), kind: "bad", name: "refused", tone: "bad" },
  ], { label: "Shares a minute over the last hour", format: count, height: 130 });
  lines($("backlog-chart"), [{ points: list.map((s) => [s.time_ms, s.backlog]), name: "shares waiting for the pool", tone: "accent" }],
    { label: "Shares waiting for the pool over the last hour", format: count, height: 90 });
}

function drawMiners(answer) {
  put("miners-count", `${count(answer.connections_total)} connections, ${count(answer.channels_total)} channels`);
  const rows = answer.connections.flatMap((connection) => connection.channels.map((channel) => h("tr", {},
    h("td", {}, channel.user_identity), h("td", {}, connection.device || "–"), h("td", { class: "mono" }, connection.peer), h("td", {}, channel.kind),
    h("td", { class: "number" }, difficulty(channel.difficulty)), h("td", { class: "number" }, hashrate(channel.hashrate)),
    h("td", { class: "number" }, count(channel.shares_accepted)), h("td", { class: "number" }, count(channel.shares_rejected)),
    h("td", { class: "number" }, channel.last_share_ms ? `${age(Date.now() - channel.last_share_ms)} ago` : "–"))));
  $("miner-rows").replaceChildren(...(rows.length ? rows : [h("tr", {}, h("td", { colspan: "9", class: "empty" }, "Nobody is connected."))]));
  $("more-miners").hidden = answer.next === null;
}

// ---------------------------------------------------------------- policies

function drawPolicies() {
  const { policy_set, previous_set, policies } = state.policies;
  put("set", short(policy_set));
  $("rollback").disabled = !previous_set;
  $("policy-list").replaceChildren(...policies.map((policy) => h("details", { class: "card", role: "listitem" },
    h("summary", {}, h("span", { class: "badge", "data-tone": policy.enforcement === "enforce" ? "good" : "" }, policy.enforcement),
      h("span", { class: "what" }, policy.name), h("span", { class: "quiet" }, `${policy.policy} ${policy.version}`)),
    h("div", { class: "rest" }, policy.summary,
      h("dl", {}, ...Object.entries({ module: policy.module, "sha256": short(policy.module_digest), fuel: count(policy.fuel), settings: JSON.stringify(policy.settings) })
        .flatMap(([name, value]) => [h("dt", {}, name), h("dd", { class: name === "settings" ? "mono" : undefined }, value)]))))));
}

function drawDifference(report) {
  const { counts, templates, proposed } = report.difference;
  const said = (side) => (side.accepted ? "accepted" : `${side.reason_code} by ${side.decided_by ?? "the gateway"}`);
  const changed = templates.filter((template) => template.outcome !== "same");
  const words = report.reason_code === "policy_set_unchanged" && report.dry_run
    ? "The file has the policies that run already."
    : `${counts.replayed} templates judged by both: ${counts.same} the same, ${counts.newly_rejected} newly rejected, ${counts.newly_accepted} newly accepted, ${counts.other_reason} for another reason.`;
  $("difference").replaceChildren(
    h("p", {}, h("b", {}, report.dry_run ? "Nothing was changed. " : `${report.reason_code}. `), words),
    report.dry_run && report.reason_code !== "policy_set_unchanged" ? h("p", { class: "quiet" }, `The proposed set is ${short(proposed)}.`) : "",
    h("ul", {}, ...changed.slice(0, 12).map((template) => h("li", {}, `${count(template.height)} ${short(template.template)}: ${said(template.running)} → ${said(template.proposed)}`))),
    report.reloaded.length ? h("p", {}, `${report.dry_run ? "These keys would take effect" : "These keys have taken effect"}: ${report.reloaded.join(", ")}`) : "",
    report.mode.from !== report.mode.to ? h("p", {}, `The mode: ${report.mode.from} → ${report.mode.to}`) : "",
    report.restart_needed.length ? h("p", { class: "tone-warn" }, `These wait for the next start: ${report.restart_needed.join(", ")}`) : "");
}

function showRefusal(error) {
  const faults = error instanceof Refused ? error.answer.faults ?? [] : [];
  $("difference").replaceChildren(h("p", { class: "tone-bad" }, error.message),
    h("ul", {}, ...faults.map((fault) => h("li", {}, `${fault.place}: ${fault.policy ? `${fault.policy}: ` : ""}${fault.reason}: ${fault.detail}`))));
}

function sure(title, text) {
  put("sure-title", title);
  put("sure-words", text);
  const dialog = $("sure");
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
}

async function change(button, work) {
  button.disabled = true;
  try { await work(); } catch (error) { showRefusal(error); notice(error.message); } finally { button.disabled = false; await lookPolicies(); }
}

function wire() {
  $("compare").addEventListener("click", () => change($("compare"), async () => {
    const report = await request("POST", "/v1/reload?dry_run=true");
    drawDifference(report);
    state.compared = report.reason_code !== "policy_set_unchanged" || report.reloaded.length > 0 || report.mode.from !== report.mode.to;
    $("swap").disabled = !state.compared;
  }));
  $("swap").addEventListener("click", async () => {
    if (!(await sure("Take over the file?", "The policies, the mode and the keys of the configuration file count from then on. The running policies can be brought back."))) return;
    await change($("swap"), async () => drawDifference(await request("POST", "/v1/reload")));
    $("swap").disabled = true;
  });
  $("rollback").addEventListener("click", async () => {
    if (!(await sure("Roll back the policies?", "The policy set before judges again. The configuration file stays as it is."))) return;
    await change($("rollback"), async () => {
      const report = await request("POST", "/v1/policies/rollback");
      $("difference").replaceChildren(h("p", {}, h("b", {}, `${report.reason_code}. `), `${short(report.from)} → ${short(report.to)}`));
    });
  });
  $("toggle-mode").addEventListener("click", async () => {
    const mode = $("toggle-mode").dataset.mode;
    const text = mode === "inline" ? "From then on only admitted templates go to miners." : "From then on every template goes to miners, and what inline mode would refuse is written down.";
    if (!(await sure(`Change to ${mode} mode?`, text))) return;
    await change($("toggle-mode"), async () => { const report = await request("POST", "/v1/mode", { body: { mode } }); notice(`${report.reason_code}: ${report.from} → ${report.to}`); });
    await look();
  });
  $("only-rejected").addEventListener("change", drawVerdicts);
  $("more-miners").addEventListener("click", () => { state.shown = Math.min(500, state.shown + PAGE); lookMiners(); });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = () => { document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light"); };
  dark.addEventListener("change", theme);
  $("theme").addEventListener("click", () => { localStorage.setItem("theme", document.documentElement.dataset.theme === "dark" ? "light" : "dark"); theme(); });
  theme();
}

// ---------------------------------------------------------------- looking

async function look() { state.overview = await request("GET", "/v1/overview"); drawOverview(); }
async function lookHistory() { state.history = await request("GET", "/v1/history"); drawHistory(); }
async function lookMiners() { drawMiners(await request("GET", `/v1/miners?limit=${state.shown}`)); }
async function lookPolicies() { state.policies = await request("GET", "/v1/policies"); drawPolicies(); }
async function lookBack() {
  state.templates = (await request("GET", `/v1/templates?limit=${MAX}`)).records;
  state.steps = (await request("GET", `/v1/timeline?limit=${MAX}`)).records;
  drawVerdicts();
  drawTimeline();
}

/** Again and again, but only while somebody looks, and never twice at once. */
function every(ms, work) {
  let busy = false;
  const again = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try { await work(); } catch { /* the stream says that the gateway is away */ } finally { busy = false; }
  };
  setInterval(again, ms);
  return again();
}

let planned = false;
/** Many events, one drawing. */
function plan() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; drawVerdicts(); drawTimeline(); });
}

function hear(name, record) {
  const list = name === "template_judged" ? state.templates : state.steps;
  if (list.some((known) => known.seq === record.seq)) return;
  list.unshift(record);
  list.length = Math.min(list.length, MAX);
  plan();
  if (name === "template_judged" && !record.verdict.accepted) {
    notice(`Template at ${count(record.height)} ${record.enforced === "refused" ? "rejected" : "judged"}: ${record.verdict.reason_code}`);
  }
  if (["gate_held", "gate_expired", "block_found", "source_stale", "source_leads"].includes(name)) notice(words(record)[0]);
  if (name.startsWith("policy_set")) lookPolicies();
  if (name !== "template_judged") look().catch(() => {});
}

function live(is) {
  $("live").dataset.tone = is ? "good" : "bad";
  put("live", is ? "live" : "gateway is away");
  if (is) lookBack().catch(() => {});
}

// The charts are drawn for the width that they have.
let wide = innerWidth;
addEventListener("resize", () => { if (innerWidth !== wide) { wide = innerWidth; plan(); drawHistory(); } });

wire();
follow(EVENTS, { event: hear, state: live, gap: () => lookBack() });
every(2000, look);
every(5000, lookHistory);
every(5000, lookMiners);
every(15000, lookPolicies);
