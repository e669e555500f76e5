// Replaces the part of a page that changes, every few seconds while somebody can see it.
export function refresh() {
  const live = document.getElementById("live");
  if (!live || !live.dataset.refresh) return;
  const again = () => setTimeout(load, live.dataset.refresh * 1000);
  const load = () => {
    if (document.hidden) return again();
    const request = new XMLHttpRequest(); // parses HTML without a string that could be a script
    request.open("GET", location.href);
    request.responseType = "document";
    request.setRequestHeader("Revoked-Refresh", "1");
    request.timeout = 10000;
    request.onloadend = () => {
      const next = request.response && request.response.getElementById("live");
      if (request.status === 401) return stale("You are signed out. Load the page again to sign in.");
      if (!next) stale("This page could not be updated. It shows an older state.");
      else if (!live.contains(document.activeElement)) live.replaceChildren(...next.childNodes);
      again();
    };
    request.send();
  };
  const stale = (text) => {
    let notice = document.getElementById("stale");
    if (!notice) {
      notice = document.createElement("p");
      notice.id = "stale";
      notice.className = "notice warn";
      notice.setAttribute("role", "status");
      live.prepend(notice);
    }
    notice.textContent = text;
  };
  again();
}
