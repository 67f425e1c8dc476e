package thunderbird

// Scripts that run in Thunderbird. They return at once: the caller waits, so that a dialog never blocks it.
const (
	// prepare trusts a certificate authority and returns whether the main window is ready. Argument: the certificate in
	// base64.
	prepare = `
const db = Cc["@mozilla.org/security/x509certdb;1"].getService(Ci.nsIX509CertDB);
db.addCertFromBase64(arguments[0], "C,,");
const w = Services.wm.getMostRecentWindow("mail:3pane");
return !!w && w.document.readyState == "complete";`

	// compose opens a compose window. Argument: server, from, to, subject, body.
	compose = `
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
const m = arguments[0];
const identity = MailServices.accounts.defaultAccount.defaultIdentity;
identity.smtpServerKey = m.server;
identity.email = m.from;
const params = Cc["@mozilla.org/messengercompose/composeparams;1"].createInstance(Ci.nsIMsgComposeParams);
params.type = Ci.nsIMsgCompType.New;
params.format = Ci.nsIMsgCompFormat.PlainText;
params.identity = identity;
const fields = Cc["@mozilla.org/messengercompose/composefields;1"].createInstance(Ci.nsIMsgCompFields);
fields.to = m.to;
fields.subject = m.subject;
fields.body = m.body;
params.composeFields = fields;
MailServices.compose.OpenComposeWindowWithParams(null, params);`

	// password stores a password, as "remember" in the prompt does. Arguments: server, password.
	password = `
const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
MailServices.outgoingServer.getServerByKey(arguments[0]).password = arguments[1];`

	// send presses Send if the window is ready, and returns whether it did.
	send = `
const w = Services.wm.getMostRecentWindow("msgcompose");
if (!w || !w.composeEditorReady || w.document.readyState != "complete") {
  return false;
}
w.setTimeout(() => w.goDoCommand("cmd_sendNow"), 0);
return true;`

	// look returns the number of compose windows, and the texts of the dialogs.
	look = `
const windows = [...Services.wm.getEnumerator(null)];
const dialogs = windows.filter(
  w => w.location.href == "chrome://global/content/commonDialog.xhtml" && w.document.readyState == "complete");
return {
  writing: windows.filter(w => w.document.documentElement?.getAttribute("windowtype") == "msgcompose").length,
  dialogs: dialogs.map(w => ({ title: w.document.title, text: w.document.getElementById("infoBody")?.textContent ?? "",
    password: !w.document.getElementById("password1Container")?.hidden })),
};`

	// answer presses a button of the first dialog. Arguments: accept or cancel, password to type or null.
	answer = `
const w = [...Services.wm.getEnumerator(null)].find(
  w => w.location.href == "chrome://global/content/commonDialog.xhtml");
if (arguments[1] !== null) {
  w.document.getElementById("password1Textbox").value = arguments[1];
}
const dialog = w.document.getElementById("commonDialog");
w.setTimeout(() => dialog.getButton(arguments[0]).click(), 0);`

	// discard closes the compose windows without asking.
	discard = `
for (const w of Services.wm.getEnumerator("msgcompose")) {
  w.gContentChanged = false;
  if (w.gMsgCompose) {
    w.gMsgCompose.bodyModified = false;
  }
  w.close();
}`
)
