// Keeps drafts, counts the time the page is in front, and knows a few keys. The page works without.
"use strict";

(() => {
  const form = document.getElementById("judge");
  const field = (name) => form.elements[name];
  const kept = document.getElementById("kept");
  const IDLE_MS = 60000, PAUSE_MS = 700, RETRY_MS = 4000, LARGEST_FAREWELL = 60000;
  const NOT_TYPED = ["csrf_token", "who", "revision", "draft_number", "active_s"];
  const place = `draft/${field("who").value}/${form.action}`;

  let number = Number(field("draft_number").value);
  let dirty = false, leaving = false, timer = null, sending = false;
  let active = Number(field("active_s").value), lastTick = Date.now(), lastTouch = Date.now();

  function say(text, bad) {
    kept.textContent = text;
    kept.classList.toggle("bad", Boolean(bad));
  }

  function tick() {
    const now = Date.now();
    if (document.visibilityState === "visible" && now - lastTouch < IDLE_MS) {
      active += Math.min(now - lastTick, 5000) / 1000;
    }
    lastTick = now;
    field("active_s").value = Math.round(active);
  }

  function typed() {
    return [...new FormData(form)].filter(([name]) => !NOT_TYPED.includes(name));
  }

  // A second net, in this tab alone: what was typed since the server last answered.
  function remember() {
    const note = { number, revision: field("revision").value, typed: typed() };
    try { sessionStorage.setItem(place, JSON.stringify(note)); } catch { /* no room: the server has it */ }
  }

  function restore() {
    let note = null;
    try { note = JSON.parse(sessionStorage.getItem(place)); } catch { return; }
    if (!note || note.revision !== field("revision").value || note.number <= number) return;
    for (const element of form.querySelectorAll("textarea, select")) element.value = "";
    for (const element of form.querySelectorAll("[name][type=radio], [name][type=checkbox]")) element.checked = false;
    for (const [name, value] of note.typed) {
      const found = field(name);
      if (!found) continue;
      if (found instanceof RadioNodeList) found.value = value;
      else if (found.type === "checkbox") found.checked = true;
      else found.value = value;
    }
    if (field("correction").value) form.querySelector(".correction").open = true;
    number = note.number;
    changed();
  }

  function body() {
    tick();
    field("draft_number").value = number;
    return new FormData(form);
  }

  async function send() {
    clearTimeout(timer);
    if (sending) { timer = setTimeout(send, PAUSE_MS); return; }
    sending = true;
    const sent = number;
    try {
      const answer = await fetch(form.dataset.draft, {
        method: "POST", body: body(), headers: { "X-Requested-With": "script" },
      });
      if (!answer.ok) {
        const told = await answer.json().catch(() => ({}));
        throw new Error(told.problem || "The server does not answer.");
      }
      const { kept: isKept } = await answer.json();
      if (sent === number) dirty = false;
      if (isKept) {
        if (!dirty) sessionStorage.removeItem(place);
        say(`Draft kept at ${new Date().toLocaleTimeString()}`);
      } else {
        say("Open in another window with newer text; this text is kept in this tab only.", true);
      }
    } catch (error) {
      if (!leaving) {
        say(`Draft not kept: ${error.message} It stays in this tab; trying again.`, true);
        timer = setTimeout(send, RETRY_MS);
      }
    } finally {
      sending = false;
    }
  }

  function changed() {
    dirty = true;
    number += 1;
    field("draft_number").value = number;
    lastTouch = Date.now();
    remember();
    showStrength();
    clearTimeout(timer);
    timer = setTimeout(send, PAUSE_MS);
  }

  function farewell() {
    if (!dirty || leaving) return;
    const data = body();
    const size = [...data.values()].reduce((sum, text) => sum + 2 * text.length, 0);
    fetch(form.dataset.draft, {
      method: "POST", body: data, keepalive: size < LARGEST_FAREWELL,
      headers: { "X-Requested-With": "script" },
    }).catch(() => {});
  }

  function showStrength() {
    const preferred = ["a", "b"].includes(field("preference").value);
    document.getElementById("strength").classList.toggle("off", !preferred);
  }

  function connectFlags() {
    for (const side of "ab") {
      const flag = field(`unsafe_${side}`), category = field(`category_${side}`);
      category.addEventListener("change", () => { if (category.value) flag.checked = true; });
      flag.addEventListener("change", () => {
        if (flag.checked) category.focus(); else category.value = "";
      });
    }
  }

  function hideNeedlessLinks() {
    for (const pane of form.querySelectorAll(".pane")) {
      if (pane.scrollHeight <= pane.clientHeight) pane.nextElementSibling.hidden = true;
    }
  }

  function copyAnswer(side) {
    const text = form.querySelector(`.pane[data-side=${side}]`).textContent;
    const target = field("correction");
    if (target.value.trim() && !confirm("Put the answer in place of what you wrote?")) return;
    target.value = text;
    field("correction_base").value = side;
    target.focus();
    changed();
  }

  function onKey(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      form.requestSubmit(form.querySelector("button[value=save]"));
      return;
    }
    const writing = event.target.closest("textarea, select, input:not([type=radio], [type=checkbox])");
    if (writing || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (!document.getElementById("shortcuts").checked) return;
    const preference = { 1: "a", 2: "b", 3: "tie", 4: "both_unsafe", 5: "cannot_judge" }[event.key];
    const strength = { q: "1", w: "2", e: "3" }[event.key.toLowerCase()];
    if (!preference && !strength) return;
    event.preventDefault();
    const name = preference ? "preference" : "strength";
    for (const radio of field(name)) {
      if (radio.value === (preference || strength)) { radio.checked = true; radio.focus(); }
    }
    changed();
  }

  function useKeys() {
    const box = document.getElementById("shortcuts");
    box.checked = localStorage.getItem("keys") !== "off";
    const show = () => document.body.classList.toggle("no-keys", !box.checked);
    box.addEventListener("change", () => {
      localStorage.setItem("keys", box.checked ? "on" : "off");
      show();
    });
    show();
  }

  for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;
  for (const button of form.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copyAnswer(button.dataset.copy));
  }
  connectFlags();
  hideNeedlessLinks();
  useKeys();
  restore();
  showStrength();
  form.addEventListener("input", (event) => { if (event.target.name) changed(); });
  form.addEventListener("submit", () => { tick(); leaving = true; clearTimeout(timer); });
  for (const kind of ["pointermove", "keydown", "scroll", "touchstart"]) {
    document.addEventListener(kind, () => { lastTouch = Date.now(); }, { passive: true, capture: true });
  }
  document.addEventListener("keydown", onKey);
  document.addEventListener("visibilitychange", tick);
  window.addEventListener("pagehide", farewell);
  setInterval(tick, 1000);
})();
