// Replaces the part of a page that changes, every few seconds while the page is visible. The focus
// and the scrolled regions stay where they are.
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
      const busy = inUse(live);
      if (!next) stale("This page could not be updated. It shows an older state.");
      else if (busy) stale("This part shows an older state. It is not updated " + busy);
      else replace(live, next);
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

// inUse returns why the part must not be replaced: the user types in it or has selected text.
function inUse(live) {
  const fields = [...live.querySelectorAll("input, select, textarea")];
  if (fields.some((field) => field === document.activeElement || field.value !== (field.defaultValue ?? field.value))) {
    return "while you fill in its form.";
  }
  const selection = getSelection();
  if (!selection.isCollapsed && selection.containsNode(live, true)) return "while text is selected.";
  return "";
}

// replace puts the children of next into live.
function replace(live, next) {
  const scrolled = regions(live).map((region) => [nameOf(region), region.scrollLeft, region.scrollTop]);
  const active = document.activeElement;
  const focused = active !== live && live.contains(active) ? nameOf(active) : "";
  live.replaceChildren(...next.childNodes);
  for (const [name, left, top] of scrolled) {
    const region = regions(live).find((r) => nameOf(r) === name);
    if (region) region.scrollTo(left, top);
  }
  if (!focused) return;
  const same = [...live.querySelectorAll("a[href], button, [tabindex]")].find((e) => nameOf(e) === focused);
  if (same) same.focus({ preventScroll: true });
}

const regions = (live) => [...live.querySelectorAll(".scroll")];

// nameOf returns what an element has in common with the one that replaces it.
const nameOf = (e) => ["id", "href", "aria-label", "aria-labelledby"].map((name) => e.getAttribute(name)).join("\n");
