// Renews the part of the page that says so by itself: `<div id="live" data-refresh="SECONDS">`. Without it, a link does the same.
"use strict";
const wait = () => {
  const live = document.getElementById("live");
  if (live) setTimeout(renew, 1000 * live.dataset.refresh, live);
};
const renew = async (live) => {
  const isBusy = document.activeElement.matches("input, select") || live.contains(document.activeElement);
  // Not under the reader's hands, and not where nobody looks.
  if (!document.hidden && !isBusy && String(getSelection()) === "") {
    try {
      const answer = await fetch(location.href);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = page.getElementById("main");
      // What has come to its end changes what can be done, too.
      if (answer.ok && !answer.redirected && main) {
        const fresh = page.getElementById("live");
        if (fresh) live.replaceWith(fresh);
        else document.getElementById("main").replaceWith(main);
      }
    } catch {
      // The next look may succeed.
    }
  }
  wait();
};
wait();
