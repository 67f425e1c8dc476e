// Passkeys: a form with data-ceremony asks the server for options, the browser for a passkey, and sends what it made.
"use strict";

(() => {
	const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
	const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
		.replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

	// decoded is the options with octets where the browser wants them.
	function decoded(options) {
		const o = options.publicKey;
		o.challenge = bytes(o.challenge);
		if (o.user) o.user.id = bytes(o.user.id);
		for (const list of [o.allowCredentials, o.excludeCredentials]) {
			for (const each of list || []) each.id = bytes(each.id);
		}
		return { publicKey: o };
	}

	// encoded is what the passkey made, as JSON.
	function encoded(made) {
		const response = {};
		for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
			if (made.response[name]) response[name] = text(made.response[name]);
		}
		if (made.response.getTransports) response.transports = made.response.getTransports();
		return JSON.stringify({
			id: made.id, rawId: text(made.rawId), type: made.type, response,
			clientExtensionResults: made.getClientExtensionResults(),
		});
	}

	// asked returns the server's options; an Error has the text to show.
	async function asked(form, fields, says) {
		const answer = await fetch(form.dataset.options, { method: "POST", body: fields, redirect: "error" });
		if (answer.ok) return answer.json();
		const told = await answer.json().catch(() => ({}));
		const error = new Error(answer.status);
		error.shown = told.error || (answer.status === 429 ? says.dataset.busy : "");
		throw error;
	}

	async function run(form, says) {
		const others = (form.dataset.with || "").split(" ").filter(Boolean).map((id) => document.getElementById(id));
		if (!others.every((input) => input.reportValidity())) return;
		says.hidden = true;
		const fields = new URLSearchParams();
		if (form.dataset.with === "name") fields.set("name", others[0].value); // no password goes there
		try {
			const options = decoded(await asked(form, fields, says));
			const made = await navigator.credentials[form.dataset.ceremony](options);
			for (const input of others) {
				const copy = form.elements[input.name] || form.appendChild(document.createElement("input"));
				copy.type = "hidden";
				copy.name = input.name;
				copy.value = input.value;
			}
			form.elements.response.value = encoded(made);
			form.submit();
		} catch (error) {
			const cancelled = error.name === "NotAllowedError" || error.name === "AbortError";
			says.textContent = error.shown || (cancelled ? says.dataset.cancelled : says.dataset.failed);
			says.hidden = false;
		}
	}

	if (!window.PublicKeyCredential || !navigator.credentials) return;
	for (const form of document.querySelectorAll("form[data-ceremony]")) {
		const says = form.querySelector("[data-cancelled]");
		form.hidden = false;
		form.addEventListener("submit", async (event) => {
			event.preventDefault();
			const button = form.querySelector("button");
			button.disabled = true;
			await run(form, says);
			button.disabled = false;
		});
	}
})();
