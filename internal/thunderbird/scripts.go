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

	// through sets a SOCKS proxy. Arguments: host, port.
	through = `
const set = (name, value) => typeof value == "number" ? Services.prefs.setIntPref(name, value)
  : typeof value == "boolean" ? Services.prefs.setBoolPref(name, value) : Services.prefs.setStringPref(name, value);
set("network.proxy.socks", arguments[0]);
set("network.proxy.socks_port", arguments[1]);
set("network.proxy.socks_version", 5);
set("network.proxy.socks_remote_dns", true);
set("network.proxy.socks5_remote_dns", true);
set("network.proxy.type", 1);`

	// setUp does what the window "Add mail account" does, but for asking the incoming server whether the password is
	// right. It leaves the outcome in the main window. Arguments: name, address, password.
	setUp = `
const load = name => ChromeUtils.importESModule("resource:///modules/accountcreation/" + name + ".sys.mjs");
const w = Services.wm.getMostRecentWindow("mail:3pane");
const [name, address, password] = arguments;
w.posternFound = null;
const work = async () => {
  const search = load("FindConfig").FindConfig.parallelAutoDiscovery(address.split("@")[1], address,
    new AbortController().signal, password);
  let step = await search.next();
  while (!step.done) {
    step = await search.next({ acceptRedirect: false });
  }
  const config = step.value;
  if (!config) {
    throw new Error("nothing was found");
  }
  load("AccountConfig").AccountConfig.replaceVariables(config, name, address, password);
  config.incoming.loginAtStartup = false;
  config.rememberPassword = true;
  const account = await load("CreateInBackend").CreateInBackend.createAccountInBackend(config);
  account.incomingServer.doBiff = false;
  const { MailServices } = ChromeUtils.importESModule("resource:///modules/MailServices.sys.mjs");
  MailServices.accounts.defaultAccount = account;
  account.defaultIdentity.composeHtml = false;
  account.defaultIdentity.setBoolAttribute("fcc", false);
  const endpoint = s => ({ Type: s.type, Host: s.hostname, Port: s.port, Security: s.socketType, Login: s.username });
  return { Source: config.subSource, Name: config.displayName, Incoming: endpoint(config.incoming),
    Outgoing: endpoint(config.outgoing), Key: account.defaultIdentity.smtpServerKey };
};
work().then(found => { w.posternFound = found; },
  e => { w.posternFound = { Error: String(e) + " " + (e.stack ?? "") }; });`

	// setUpDone returns the outcome of setUp, null before there is one.
	setUpDone = `return Services.wm.getMostRecentWindow("mail:3pane").posternFound;`
)
