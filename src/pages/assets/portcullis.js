// Makes the pages more comfortable. Every page works without it, and all it ever asks is whether somebody has signed in.
(() => {
  "use strict";

  const each = (selector, act) => document.querySelectorAll(selector).forEach(act);

  // A list is copied line by line, a key without the gaps that make it readable.
  const textOf = (element) =>
    element.tagName === "OL"
      ? Array.from(element.children, (line) => line.textContent.trim()).join("\n")
      : element.textContent.replace(/\s/g, "");

  // What only works with script stays hidden until there is script.
  each("[data-reveal], [data-copy], [data-download], [data-print]", (element) => {
    element.hidden = false;
  });

  each("[data-copy]", (button) => {
    const source = document.getElementById(button.dataset.copy);
    const label = button.textContent;
    const said = document.createElement("span");
    said.className = "unseen";
    said.setAttribute("role", "status");
    button.after(said);
    let timer;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(textOf(source));
        button.textContent = "Copied";
        said.textContent = "Copied";
      } catch {
        // No right to the clipboard: selecting leaves one key press to do.
        getSelection().selectAllChildren(source);
        said.textContent = "Selected, copy it now";
      }
      clearTimeout(timer);
      timer = setTimeout(() => {
        button.textContent = label;
        said.textContent = "";
      }, 2500);
    });
  });

  each("[data-download]", (button) => {
    button.addEventListener("click", () => {
      const codes = textOf(document.getElementById(button.dataset.download));
      const file = new Blob([`${button.dataset.heading}\n\n${codes}\n`], { type: "text/plain" });
      const link = document.createElement("a");
      link.href = URL.createObjectURL(file);
      link.download = "recovery-codes.txt";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  });

  // What follows the # never reaches a server. It goes along from page to page, and back to where the user came from.
  if (location.hash) {
    each('form[action^="/"]', (form) => form.setAttribute("action", form.getAttribute("action") + location.hash));
    each('a[data-goes-on], a[href^="/.portcullis/"]', (link) => {
      link.hash = location.hash;
    });
  }

  // Who has signed in in another window need not do it again in this one.
  each("[data-signed-out]", (form) => {
    const look = async () => {
      if (document.visibilityState !== "visible") {
        return;
      }
      try {
        const answer = await fetch("/.portcullis/whoami", { headers: { Accept: "application/json" } });
        if (answer.ok) {
          const rd = form.querySelector("[name=rd]")?.value ?? "/";
          location.replace(`/.portcullis/login?${new URLSearchParams({ rd })}${location.hash}`);
        }
      } catch {
        // No answer: whoever is here can still sign in.
      }
    };
    document.addEventListener("visibilitychange", look);
    addEventListener("focus", look);
  });

  // On to where the portal leads. This form of leaving takes along what follows the #.
  each("[data-leave]", (link) => {
    location.replace(link.hash ? link.href : link.href + location.hash);
  });

  // A login beside a page that was open: that page hears of it and goes on.
  each("[data-beside]", () => {
    new BroadcastChannel("portcullis-session").postMessage("signed in");
    close();
  });

  // A login that is begun in a frame leads back to the page around it.
  each("[data-whole-window]", (link) => {
    link.addEventListener("click", () => {
      try {
        const { pathname, search, hash } = top.location;
        link.search = new URLSearchParams({ rd: pathname + search });
        link.hash = hash;
      } catch {
        // A page of another site: where it is stays its own affair.
      }
    });
  });

  each("[data-print]", (button) => {
    button.addEventListener("click", () => print());
  });

  each("[data-reveal]", (button) => {
    const input = document.getElementById(button.dataset.reveal);
    const word = button.querySelector("[data-word]");
    const show = (shown) => {
      input.type = shown ? "text" : "password";
      word.textContent = shown ? "Hide" : "Show";
    };
    button.addEventListener("click", () => show(input.type === "password"));
    // Browsers only offer to keep what a password field holds.
    input.form.addEventListener("submit", () => show(false));
  });

  // One press, one request: a second code check would find the code used. Ten seconds later a lost request may be repeated.
  each("form", (form) => {
    const button = form.querySelector("[type=submit]");
    let sent = false;
    const free = () => {
      sent = false;
      button.removeAttribute("aria-disabled");
    };
    form.addEventListener("submit", (event) => {
      if (sent) {
        event.preventDefault();
        return;
      }
      sent = true;
      button.setAttribute("aria-disabled", "true");
      setTimeout(free, 10000);
    });
    addEventListener("pageshow", free);
  });

  each("[data-submit-when-complete]", (input) => {
    // Nobody should be surprised by a form that sends itself.
    const note = document.getElementById(input.dataset.submitWhenComplete);
    note.hidden = false;
    input.setAttribute("aria-describedby", `${input.getAttribute("aria-describedby")} ${note.id}`);
    input.addEventListener("input", () => {
      if (/^\p{Nd}{6}$/u.test(input.value.replace(/[^\p{L}\p{Nd}]/gu, ""))) {
        input.form.requestSubmit();
      }
    });
  });
})();
