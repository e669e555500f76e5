// Sends the SHA-256 of a token instead of the token. The choice appears only with this script. For a
// text that looks like a JWT, the script clears the choice: a node can verify the signature of a JWT
// only if it gets the whole JWT. A form with data-hash="always" sends the digest in any case.
export function hashForms() {
  if (!window.crypto || !crypto.subtle) return;
  for (const form of document.querySelectorAll("form[data-hash]")) {
    const choice = form.querySelector("[data-hash-choice]");
    const box = choice.querySelector("input");
    const { token, digest } = form.elements;
    choice.hidden = false;
    box.checked = true;
    if (form.dataset.hash !== "always") token.addEventListener("input", () => { box.checked = token.value.trim().split(".").length !== 3; });
    form.addEventListener("submit", (event) => {
      const text = token.value.trim();
      if (!box.checked || text === "") return;
      event.preventDefault();
      crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)).then((sum) => {
        digest.value = btoa(String.fromCharCode(...new Uint8Array(sum)))
          .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
        token.value = "";
        form.submit();
      });
    });
  }
}
