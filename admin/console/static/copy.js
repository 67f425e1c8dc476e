// Conveniences: without them everything still works. A button copies the text beside it; a form that takes long says so.
"use strict";
(() => {
	const text = (of) => of.dataset.copyText ?? (of.matches("input, textarea") ? of.value : of.textContent);
	const button = (of) => {
		const b = document.createElement("button");
		b.type = "button";
		b.className = "copy";
		b.textContent = of.dataset.copy;
		if (of.dataset.copyOf) b.setAttribute("aria-label", of.dataset.copy + ": " + of.dataset.copyOf);
		b.addEventListener("click", async () => {
			try {
				await navigator.clipboard.writeText(text(of));
			} catch {
				getSelection().selectAllChildren(of);
				return;
			}
			b.textContent = of.dataset.copied;
			setTimeout(() => { b.textContent = of.dataset.copy; }, 2000);
		});
		return b;
	};
	for (const of of document.querySelectorAll("[data-copy]")) of.after(button(of));
	for (const place of document.querySelectorAll("[data-print]")) {
		const b = document.createElement("button");
		b.type = "button";
		b.className = "primary";
		b.textContent = place.dataset.print;
		b.addEventListener("click", () => print());
		place.append(b);
	}
	document.addEventListener("submit", (e) => {
		const form = e.target;
		if (!form.dataset.busy || e.defaultPrevented) return;
		if (form.getAttribute("aria-busy")) {
			e.preventDefault();
			return;
		}
		form.setAttribute("aria-busy", "true");
		const says = document.createElement("span");
		says.className = "busy";
		says.setAttribute("role", "status");
		form.append(says);
		says.textContent = form.dataset.busy;
	});
	addEventListener("pageshow", (e) => { // by the way back
		if (!e.persisted) return;
		for (const form of document.querySelectorAll("form[aria-busy]")) {
			form.removeAttribute("aria-busy");
			form.querySelector(".busy")?.remove();
		}
	});
})();
