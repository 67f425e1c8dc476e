package doctor

import "slices"

// The codes of findings. They stay, for scripts and alerts. Where there is a code for what is wrong, the one that ends
// in -ok says that nothing of its kind is.
const (
	codeExaminerHung   = "examiner-hung"
	codeExaminerFailed = "examiner-failed"
	codeMoreFindings   = "more-findings"
	codeNotExamined    = "not-examined"

	codeConfigProblem = "config-problem"
	codeConfigUnwise  = "config-unwise"
	codeConfigOK      = "config-ok"

	codeDaemonDown      = "daemon-down"
	codeDaemonSilent    = "daemon-silent"
	codeDaemonForbidden = "daemon-forbidden"
	codeDaemonStarting  = "daemon-starting"
	codeDaemonStopping  = "daemon-stopping"
	codeDaemonOK        = "daemon-ok"
	codeReloadRefused   = "reload-refused"
	codeOtherConfig     = "other-config"
	codeOtherVersion    = "restart-needed"

	codeListenerClosed      = "listener-closed"
	codeListenerTLS         = "listener-tls"
	codeListenerRefuses     = "listener-refuses"
	codeListenerNoStartTLS  = "listener-no-starttls"
	codeListenerAuthClear   = "listener-auth-clear"
	codeListenerNoAuth      = "listener-no-auth"
	codeListenerCertificate = "listener-certificate"
	codeListenerByName      = "listener-by-name"
	codeListenerOK          = "listener-ok"
	codeNameUnknown         = "name-unknown"
	codeNameElsewhere       = "name-elsewhere"
	codeNameOK              = "name-ok"

	codeCertificateBroken     = "certificate-broken"
	codeCertificateEnds       = "certificate-ends"
	codeCertificateName       = "certificate-name"
	codeCertificateChain      = "certificate-chain"
	codeCertificateChainEnded = "certificate-chain-ended"
	codeCertificateUsage      = "certificate-usage"
	codeCertificateKey        = "certificate-key"
	codeCertificateSHA1       = "certificate-sha1"
	codeCertificateECDSA      = "certificate-ecdsa-only"
	codeCertificateSelfSigned = "certificate-self-signed"
	codeCertificateACME       = "certificate-acme"
	codeCertificateAuthority  = "certificate-authority"
	codeCertificateOK         = "certificate-ok"
	codeDeviceOldTLS          = "device-old-tls"
	codeDeviceOldKey          = "device-old-key"
	codeDeviceDistrusts       = "device-distrusts"
	codeDeviceLearning        = "device-learning"
	codeDeviceNetworkWide     = "device-network-wide"
	codeDeviceOldUnused       = "device-old-tls-unused"
	codeDeviceOK              = "device-ok"

	codeClockWrong = "clock-wrong"
	codeClockFree  = "clock-free"
	codeClockOK    = "clock-ok"

	codeDiskReadOnly    = "disk-read-only"
	codeDiskRefuses     = "disk-refuses"
	codeDiskFull        = "disk-full"
	codeDiskShort       = "disk-short"
	codeDiskInodes      = "disk-inodes"
	codeDiskOK          = "disk-ok"
	codeFileLimit       = "file-limit"
	codeFileLimitOK     = "file-limit-ok"
	codeQueueNearlyFull = "queue-nearly-full"

	codeDataDirOpen  = "data-dir-open"
	codeDataDirFiles = "data-dir-files"
	codeFileOwner    = "file-owner"
	codeFileReadable = "file-readable"
	codeFileWritable = "file-writable"
	codeLeftovers    = "leftovers"
	codeFilesOK      = "files-ok"

	codeStoreUnreadable = "store-unreadable"
	codeStoreOlder      = "store-older"
	codeStoreGone       = "store-gone"
	codeStoreDamaged    = "store-damaged"
	codeStoreLog        = "store-log"
	codeStoreHistory    = "store-history"
	codeStoreEmpty      = "store-empty"
	codeServerFsync     = "store-server-fsync"
	codeServerStandby   = "store-server-standby"
	codeServerClear     = "store-server-clear"
	codeServerClock     = "store-server-clock"
	codeServerRights    = "store-server-rights"
	codeServerSuperuser = "store-server-superuser"
	codeStoreOK         = "store-ok"

	codeQueueOld = "queue-old"
	codeHeld     = "held"
	codeHeldLong = "held-long"
	codeQueueOK  = "queue-ok"

	codeUpstreamUntested = "upstream-untested"
	codeUpstreamResolve  = "upstream-resolve"
	codeUpstreamConnect  = "upstream-connect"
	codeUpstreamTLS      = "upstream-tls"
	codeUpstreamGreeting = "upstream-greeting"
	codeUpstreamToken    = "upstream-token"
	codeUpstreamLogin    = "upstream-login"
	codeUpstreamSender   = "upstream-sender"
	codeUpstreamNull     = "upstream-null-sender"
	codeUpstreamLarge    = "upstream-large-mail"
	codeUpstreamPaused   = "upstream-paused"
	codeUpstreamBackoff  = "upstream-backing-off"
	codeUpstreamOK       = "upstream-ok"
	codeSenderDenied     = "sender-denied"
	codeStorm            = "refusals-not-believed"
	codeSecretEnds       = "secret-ends"
	codeSecretOK         = "secret-ok"
	codeQuotaUsed        = "quota-used"
	codeQuotaNear        = "quota-nearly-used"

	codeAlertNone        = "alert-none"
	codeAlertUnreachable = "alert-unreachable"
	codeAlertOK          = "alert-ok"

	codeSourceDown = "source-down"
	codeSourceFile = "source-file"
	codeSourceOK   = "source-ok"

	codeAccountNone  = "account-none"
	codeLoginLocked  = "login-locked"
	codeLockout      = "lockout"
	codeLoginSilent  = "login-silent"
	codeDeviceUnseen = "device-unseen"

	codeDeviceUnreached = "device-unreached"

	codeAppPasswordsIdle = "app-passwords-idle"

	codeAccountsOK = "accounts-ok"
)

// Code is one kind of finding.
type Code struct{ Code, Means string }

// Codes are all kinds of findings of this package but those that say that something is in order.
func Codes() []Code { return slices.Clone(catalogue) }

var catalogue = []Code{
	{codeConfigProblem, "A line of relay.toml that Postern does not start with."},
	{codeConfigUnwise, "A line of relay.toml that is allowed, and probably not what was meant."},
	{codeDaemonDown, "Postern does not run."},
	{codeDaemonSilent, "Postern runs, but does not answer."},
	{codeDaemonForbidden, "Whoever runs doctor may not ask Postern; run it as root."},
	{codeDaemonStarting, "Postern is starting, and takes no mail yet."},
	{codeDaemonStopping, "Postern is shutting down."},
	{codeReloadRefused, "The last change of relay.toml was refused, and the one before is in force."},
	{codeOtherConfig, "Postern runs with another file than doctor read."},
	{codeOtherVersion, "Postern was updated, and the old version still runs."},
	{codeListenerClosed, "Nobody can connect to a listener."},
	{codeListenerTLS, "A listener cannot make a TLS connection."},
	{codeListenerRefuses, "A listener takes connections and then refuses them."},
	{codeListenerNoStartTLS, "A listener does not offer STARTTLS: something between takes it away."},
	{codeListenerAuthClear, "A listener offers to log in before the connection is encrypted."},
	{codeListenerNoAuth, "A listener does not offer to log in."},
	{codeListenerCertificate, "A listener shows another certificate than the one on the disk."},
	{codeListenerByName, "A listener works, but not by the name that clients use."},
	{codeNameUnknown, "The name that clients use has no address."},
	{codeNameElsewhere, "The name that clients use leads to an address that this machine does not have."},
	{codeCertificateBroken, "The certificate or its key cannot be used."},
	{codeCertificateEnds, "A certificate ends within 30 days."},
	{codeCertificateName, "The certificate does not cover the host name."},
	{codeCertificateChain, "The certificate of the authority between is missing."},
	{codeCertificateChainEnded, "A certificate of an authority in the file has expired; old devices mind."},
	{codeCertificateUsage, "The certificate is not meant for servers."},
	{codeCertificateKey, "Clients do not take a key of this kind or length."},
	{codeCertificateSHA1, "The certificate, or one of its authorities, is signed with SHA-1."},
	{codeCertificateACME, "A certificate cannot be obtained or renewed by ACME."},
	{codeCertificateECDSA, "There is no RSA certificate, which old devices need."},
	{codeCertificateSelfSigned, "Postern made the certificate itself, and clients do not trust it by themselves."},
	{codeCertificateAuthority, "This machine does not know the authority of the certificate."},
	{codeDeviceOldTLS, "A device failed to connect in the last week: its TLS is too old."},
	{codeDeviceOldKey, "A device failed to connect in the last week: it knows RSA certificates only."},
	{codeDeviceDistrusts, "A device failed to connect in the last week: it does not trust the certificate."},
	{codeDeviceLearning, "The devices of a network may send without login for now, to be held."},
	{codeDeviceNetworkWide, "Every machine of a large network is one account, without login."},
	{codeDeviceOldUnused, "A listener takes TLS 1.0 or 1.1, which nobody used for 30 days."},
	{codeClockWrong, "The clock differs from that of a login service by more than 30 seconds."},
	{codeClockFree, "Nothing keeps the clock right."},
	{codeDiskReadOnly, "The disk cannot be written."},
	{codeDiskRefuses, "No new mail is taken for lack of room, or because the store has failed."},
	{codeDiskFull, "The disk has less room than must stay free."},
	{codeDiskShort, "The disk will soon have too little room."},
	{codeDiskInodes, "The disk has no room for more files."},
	{codeFileLimit, "Postern may open fewer files than it would take connections."},
	{codeQueueNearlyFull, "Mail that waits has nearly reached max_size."},
	{codeDataDirOpen, "data_dir is open to other users of this machine."},
	{codeDataDirFiles, "Files in data_dir are open to other users of this machine."},
	{codeFileOwner, "Files in data_dir belong to another user."},
	{codeFileReadable, "relay.toml has passwords in it, and every user of this machine may read it."},
	{codeFileWritable, "Every user of this machine may change relay.toml or a file that it names."},
	{codeLeftovers, "Temporary files were left behind."},
	{codeStoreUnreadable, "The store cannot be opened or read."},
	{codeStoreOlder, "The store is of an older version than this command."},
	{codeStoreGone, "The file of the store was removed while Postern runs."},
	{codeStoreDamaged, "The store is damaged."},
	{codeStoreLog, "The log of the store has grown far beyond its usual length."},
	{codeStoreHistory, "The history takes more room than history_size."},
	{codeStoreEmpty, "More than half of a large store is empty."},
	{codeServerFsync, "The server of the store does not write to its disk what it commits."},
	{codeServerStandby, "The server of the store has standbys and waits for none."},
	{codeServerClear, "The connection to the server of the store is not encrypted."},
	{codeServerClock, "The clock differs from that of the store's server by more than 2 seconds."},
	{codeServerRights, "The user of the store lacks rights at the server."},
	{codeServerSuperuser, "The user of the store is a superuser of the server."},
	{codeQueueOld, "Mail waits for longer than warn_after."},
	{codeHeld, "Mail is held until a person releases it."},
	{codeHeldLong, "Mail is held for more than two days."},
	{codeUpstreamUntested, "An upstream could not be tried."},
	{codeUpstreamResolve, "The name of an upstream's server has no address."},
	{codeUpstreamConnect, "No connection to an upstream is possible."},
	{codeUpstreamTLS, "No encrypted connection to an upstream is possible."},
	{codeUpstreamGreeting, "An upstream's server does not greet us."},
	{codeUpstreamToken, "An upstream's login service gives no token."},
	{codeUpstreamLogin, "An upstream does not let us in."},
	{codeUpstreamSender, "An upstream does not take mail from one of the senders (Send As)."},
	{codeUpstreamNull, "An upstream takes no mail with an empty sender, which reports have."},
	{codeUpstreamLarge, "An upstream does not take large mail."},
	{codeUpstreamPaused, "The provider refuses us, and nothing is sent there until it is mended."},
	{codeUpstreamBackoff, "After faults of the provider it is tried again later."},
	{codeSenderDenied, "The provider refused mail of one sender."},
	{codeStorm, "The provider refused mail of many with the same words, which are not believed."},
	{codeSecretEnds, "A secret, a certificate or a consent for an upstream ends within 30 days."},
	{codeQuotaUsed, "A quota of the provider is used up."},
	{codeQuotaNear, "A quota of the provider is nearly used up."},
	{codeAlertNone, "No [[alert]] is configured, so that nobody is told of faults."},
	{codeAlertUnreachable, "A hook of [[alert]] cannot be reached."},
	{codeSourceDown, "A source of logins does not answer."},
	{codeSourceFile, "A password file has a line that is not understood, or others may write to it."},
	{codeAccountNone, "There is no account, and a listener wants a login."},
	{codeLoginLocked, "An account is locked."},
	{codeLockout, "A login or an address is locked out for a while after wrong passwords."},
	{codeLoginSilent, "An account may send with no address."},
	{codeDeviceUnseen, "A device was added more than a day ago and has sent nothing."},
	{codeAppPasswordsIdle, "Somebody has app passwords, and was not heard of for 90 days."},
	{codeDeviceUnreached, "A device has an account, and no listener is open to it."},
	{codeExaminerHung, "A part of the examination did not end in time."},
	{codeExaminerFailed, "A part of the examination failed by a fault of Postern's own."},
	{codeMoreFindings, "There are more findings of a kind than are shown."},
	{codeNotExamined, "Something could not be looked at; the text says why."},
}

// healthy are the codes of what is in order.
var healthy = []string{codeConfigOK, codeDaemonOK, codeListenerOK, codeNameOK, codeCertificateOK, codeDeviceOK,
	codeClockOK, codeDiskOK, codeFileLimitOK, codeFilesOK, codeStoreOK, codeSourceOK, codeQueueOK, codeUpstreamOK,
	codeSecretOK, codeAlertOK, codeAccountsOK}
