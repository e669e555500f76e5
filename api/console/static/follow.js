// Adds new entries of the audit log to the table when they are committed. The script reads the
// stream itself, because EventSource cannot send the header Revoked-Refresh. Without this header,
// the page would keep its session alive for as long as it is open.
export function follow() {
  const table = document.getElementById("audit");
  if (!table) return;
  const status = document.getElementById("following");
  let last = table.dataset.after;
  let begun = "";
  const say = (text) => { status.textContent = text; };

  const add = (entry) => {
    const row = document.createElement("tr");
    row.className = "fresh";
    const object = Object.entries(entry.object || {}).map(([k, v]) => k + " " + v).join(", ");
    const texts = [new Date(entry.time * 1000).toISOString().slice(0, 19).replace("T", " ") + " UTC", entry.kind,
      entry.actor, object, entry.outcome, [entry.reason, entry.detail].filter(Boolean).join("; "), entry.node, entry.index];
    texts.forEach((text, i) => {
      const cell = document.createElement("td");
      if (i === 3 || i === 5) cell.className = "wide";
      cell.textContent = text;
      row.append(cell);
    });
    table.tBodies[0].prepend(row);
    while (table.tBodies[0].rows.length > 500) table.tBodies[0].lastElementChild.remove();
  };

  const take = (block) => {
    let data = "";
    let kind = "";
    for (const line of block.split("\n")) {
      if (line.startsWith("id:")) last = line.slice(3).trim();
      if (line.startsWith("event:")) kind = line.slice(6).trim();
      if (line.startsWith("data:")) data += line.slice(5).trim();
    }
    if (!data || kind === "heartbeat" || kind === "end") return;
    const entry = JSON.parse(data);
    if (entry.time) add(entry);
  };

  // restart replaces the entries with the newest ones, from a new copy of the page.
  const restart = () => new Promise((done, fail) => {
    const request = new XMLHttpRequest(); // parses HTML without a string that could be a script
    request.open("GET", location.href);
    request.responseType = "document";
    request.setRequestHeader("Revoked-Refresh", "1");
    request.timeout = 10000;
    request.onloadend = () => {
      const next = request.response && request.response.getElementById("audit");
      if (request.status === 401) return fail(new Error("ended"));
      if (!next) return fail(new Error("status " + request.status));
      last = next.dataset.after;
      table.tBodies[0].replaceWith(next.tBodies[0]);
      begun = "The node no longer had the entries after the last one. So this list starts again with the newest ones. ";
      done();
    };
    request.send();
  });

  const read = async () => {
    const answer = await fetch(table.dataset.stream + "&after=" + encodeURIComponent(last),
      { headers: { Accept: "text/event-stream", "Revoked-Refresh": "1" } });
    if (answer.status === 401) throw new Error("ended");
    if (answer.status === 410) return restart();
    if (!answer.ok) throw new Error("status " + answer.status);
    say(begun + "New entries appear as they are committed.");
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      for (let end; (end = rest.indexOf("\n\n")) >= 0; rest = rest.slice(end + 2)) take(rest.slice(0, end));
    }
  };

  const run = async () => {
    for (;;) {
      try {
        await read();
      } catch (problem) {
        if (problem.message === "ended") return say("You are signed out. Load the page again to sign in.");
        say("The live view is interrupted. It will connect again.");
      }
      await new Promise((wait) => setTimeout(wait, 2000));
    }
  };
  run();
}
