// A page that shows a secret once answers a form: reloading it must not send the form again.

const page = document.querySelector("[data-shown-once]");
history.replaceState(null, "", page.dataset.shownOnce);
