// The notice in a page of the portal that is open when its session ends. It keeps to itself: nothing of the page is replaced, no
// request of the page is touched, and asking about the session does not keep it.
(() => {
  "use strict";

  // Whole addresses: the page's <base> is not ours.
  const LOOK = `${location.origin}/.portcullis/session`;
  const STAY = `${location.origin}/.portcullis/stay`;
  const SIGN_IN = `${location.origin}/.portcullis/login?rd=/.portcullis/signed-in`;
  // In seconds: how long before the end somebody is asked, and how often the gateway is, at most and at least.
  const WARNING = 120;
  const RARELY = 300;
  const WHILE_BUSY = 60;
  const OFTEN = 5;

  // Once in a page, however often its scripts copy the tag.
  document.currentScript?.remove();
  const mark = Symbol.for("portcullis-session-notice");
  if (window[mark] || window.top !== window) {
    return;
  }
  window[mark] = true;

  const send = window.fetch.bind(window);
  const minutes = (seconds) =>
    seconds < 60 ? "less than a minute" : seconds < 90 ? "1 minute" : `${Math.round(seconds / 60)} minutes`;

  // Whose page this is. Until there has been a session, there is none to miss.
  let user;
  let shown = "nothing";
  let due = Infinity;
  let timer;
  let asking = false;
  let again = false;
  let asked = -Infinity;
  let failures = 0;

  // The gateway

  const ask = async (address, options) => {
    const answer = await send(address, {
      headers: { Accept: "application/json" },
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
      signal: AbortSignal.timeout(10000),
      ...options,
    });
    if (!answer.ok) {
      throw new Error(`${answer.status}`);
    }
    return answer.json();
  };

  const plan = (seconds) => {
    clearTimeout(timer);
    due = Date.now() + seconds * 1000;
    timer = setTimeout(look, seconds * 1000);
  };

  // Asks how things are. A page that nobody sees waits until somebody does.
  async function look() {
    if (asking || document.visibilityState !== "visible") {
      return;
    }
    const since = (performance.now() - asked) / 1000;
    if (since < OFTEN) {
      plan(OFTEN - since);
      return;
    }
    await hear(() => ask(LOOK, {}));
  }

  // There is something new: an answer that is on its way may be older.
  function lookAgain() {
    again = asking;
    look();
  }

  async function hear(question) {
    clearTimeout(timer);
    asking = true;
    asked = performance.now();
    try {
      tell(await question());
      failures = 0;
      return true;
    } catch {
      // No answer says nothing about the session.
      failures += 1;
      if (user === undefined && failures > 2) {
        // The page may not ask: there is nothing to tell.
        due = Infinity;
        return false;
      }
      plan(Math.min(RARELY, 15 * 2 ** failures));
      return false;
    } finally {
      asking = false;
      if (again) {
        again = false;
        look();
      }
    }
  }

  function tell({ signed_in: isIn, user: who, idle_in: idle, ends_in: end }) {
    if (!isIn) {
      due = Infinity;
      if (user !== undefined) {
        showOut("Sign in to carry on where you left off. What you've typed stays here.");
      }
      return;
    }
    user ??= who;
    if (who !== user) {
      due = Infinity;
      show("other", `You're signed in as ${who}`, `${user} opened this page. Reload it to go on. What was typed here will be lost.`, [
        ["Reload", () => location.reload()],
      ]);
    } else if (idle <= WARNING && idle < end) {
      showSoon(`You'll be signed out in ${minutes(idle)}.`);
      plan(Math.max(idle > 60 ? idle - 59 : idle + 1, OFTEN));
    } else {
      if (shown === "out" || shown === "other") {
        show("back", "You're signed in again", "Carry on where you left off.", []);
        setTimeout(() => shown === "back" && hide(), 6000);
      } else if (shown !== "back") {
        hide();
      }
      // Before the end that no use puts off, nobody is asked.
      plan(Math.max(Math.min(idle < end ? idle - WARNING : end + 1, RARELY), OFTEN));
    }
  }

  let others;

  function hearOthers() {
    others = new BroadcastChannel("portcullis-session");
    others.addEventListener("message", () => {
      asked = -Infinity;
      lookAgain();
    });
  }

  async function stay() {
    const body = new URLSearchParams();
    if (await hear(() => ask(STAY, { method: "POST", body }))) {
      others.postMessage("stayed");
    } else {
      showSoon("That didn't work. Check your connection, and try again.");
    }
  }

  const showSoon = (more) => show("soon", "Still there?", more, [["Stay signed in", stay]]);
  const showOut = (more) => show("out", "You're signed out", more, [["Sign in", signIn], ["Hide", hide]]);

  function signIn() {
    if (!window.open(SIGN_IN, "portcullis-sign-in", "popup,width=520,height=760")) {
      showOut("Your browser blocked the sign-in window. Allow pop-ups for this site, or sign in in another tab and come back.");
    }
  }

  // What there is to see

  const STYLE = `
    :host {
      all: initial !important; position: fixed !important; z-index: 2147483647 !important; display: block !important;
      inset: auto 0 0 0 !important; padding: 0 12px calc(12px + env(safe-area-inset-bottom)) !important;
      pointer-events: none !important; box-sizing: border-box !important; color-scheme: light dark !important;
      direction: ltr !important; unicode-bidi: isolate !important;
    }
    :host::backdrop { display: none !important; }
    .bar {
      --surface: #fff; --ink: #16201d; --muted: #52605b; --line: #7f8c87; --fill: #0f5a4c; --strong: #0a463b; --accent: #0f5a4c;
      pointer-events: auto; box-sizing: border-box; display: flex; flex-wrap: wrap; gap: 12px 20px; align-items: center;
      max-width: 640px; margin: 0 auto; padding: 14px 18px; border: 1px solid var(--line); border-radius: 12px;
      background: var(--surface); color: var(--ink); box-shadow: 0 8px 28px rgb(0 0 0 / 22%);
      font: 400 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif;
      text-align: start; overflow-wrap: anywhere;
    }
    @media (prefers-color-scheme: dark) {
      .bar {
        --surface: #161e1b; --ink: #e6ecea; --muted: #a2b0ab; --line: #71807a; --fill: #1d7966; --strong: #20806d; --accent: #6bd0b8;
      }
    }
    .text { flex: 1 1 260px; }
    strong { display: block; font-weight: 650; }
    .more { color: var(--muted); }
    .buttons { display: flex; flex-wrap: wrap; gap: 8px; }
    button {
      font: inherit; font-weight: 600; min-height: 44px; padding: 8px 18px; border-radius: 8px; cursor: pointer;
      border: 1px solid var(--fill); background: var(--fill); color: #fff;
    }
    button:hover { background: var(--strong); }
    button + button { background: transparent; color: var(--accent); border-color: transparent; }
    button + button:hover { text-decoration: underline; }
    button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
    @media (prefers-reduced-motion: no-preference) {
      .bar { animation: arrive 160ms ease-out; }
      @keyframes arrive { from { opacity: 0; transform: translateY(8px); } }
    }
    @media (max-width: 480px) {
      .buttons { flex: 1 1 100%; }
      button { flex: 1 1 auto; }
    }
    @media print { :host { display: none !important; } }
  `;

  let host;
  let parts;
  let before;

  const element = (name, className) => Object.assign(document.createElement(name), { className });

  function build() {
    host = document.createElement("portcullis-session-notice");
    host.lang = "en";
    host.dir = "ltr";
    // In the top layer nothing of the page covers, cuts or moves it.
    host.setAttribute("popover", "manual");
    const root = host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const [bar, text, title, more, buttons] = [
      element("section", "bar"), element("div", "text"), element("strong", ""), element("span", "more"), element("div", "buttons"),
    ];
    bar.setAttribute("aria-label", "Your session");
    text.setAttribute("role", "alert");
    text.append(title, more);
    bar.append(text, buttons);
    root.append(bar);
    parts = { title, more, buttons };
    // A press leaves the caret in the field where it was.
    host.addEventListener("mousedown", (event) => event.preventDefault());
    host.addEventListener("focusin", ({ relatedTarget }) => {
      before = relatedTarget ?? before;
    });
    // Keys that are pressed here are no shortcuts of the page's.
    for (const type of ["keydown", "keypress", "keyup", "click"]) {
      host.addEventListener(type, (event) => event.stopPropagation());
    }
  }

  // A dialog of the page that shuts out everything else takes the notice in.
  function place() {
    let dialogs = [];
    try {
      dialogs = document.querySelectorAll("dialog:modal");
    } catch {
      // An old browser.
    }
    const parent = dialogs[dialogs.length - 1] ?? document.documentElement;
    if (host.parentNode !== parent) {
      parent.append(host);
      host.showPopover?.();
    }
  }

  function show(what, title, more, buttons) {
    // What was put away stays away until there is something else to say.
    if (shown === `${what}, hidden`) {
      return;
    }
    if (!host) {
      build();
    }
    place();
    if (parts.title.textContent !== title || parts.more.textContent !== more) {
      parts.title.textContent = title;
      parts.more.textContent = more;
    }
    if (shown !== what) {
      const hadFocus = document.activeElement === host;
      parts.buttons.replaceChildren(
        ...buttons.map(([label, act]) => {
          const button = element("button", "");
          button.type = "button";
          button.textContent = label;
          button.addEventListener("click", act);
          return button;
        }),
      );
      if (hadFocus) {
        (parts.buttons.firstChild ?? before)?.focus?.({ preventScroll: true });
      }
    }
    shown = what;
  }

  function hide() {
    const hadFocus = host && document.activeElement === host;
    host?.remove();
    shown = shown === "out" ? "out, hidden" : "nothing";
    if (hadFocus && before?.isConnected) {
      before.focus({ preventScroll: true });
    }
  }

  // When it looks: at its times, when somebody comes back, when somebody does something after a sleep or for the first time in a
  // minute, when another tab has news, and when the page was told that it is not signed in.

  for (const type of ["focus", "pageshow", "online"]) {
    addEventListener(type, look);
  }
  document.addEventListener("visibilitychange", look);
  const acted = () => {
    // The page may have put something over it, or thrown away what it was in.
    if (shown !== "nothing" && shown !== "out, hidden") {
      place();
    }
    // A session that was ended elsewhere is not known of otherwise: not every page reads what it is refused with.
    const isLong = performance.now() - asked > WHILE_BUSY * 1000;
    if (Date.now() >= due || (isLong && user !== undefined)) {
      look();
    }
  };
  for (const type of ["pointerdown", "keydown"]) {
    addEventListener(type, acted, { capture: true, passive: true });
  }
  // A page with an open channel could not be kept for the way back to it.
  hearOthers();
  addEventListener("pagehide", () => others.close());
  addEventListener("pageshow", ({ persisted }) => persisted && hearOthers());
  try {
    const refused = (entry) => entry.responseStatus === 401 && entry.name.startsWith(`${location.origin}/`);
    new PerformanceObserver((list) => {
      if (!shown.startsWith("out") && list.getEntries().some(refused)) {
        lookAgain();
      }
    }).observe({ type: "resource" });
  } catch {
    // A browser that does not tell.
  }
  look();
})();
