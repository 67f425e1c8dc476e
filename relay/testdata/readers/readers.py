# Reads headers as a JSON array of strings and says for each what Python's email package sees in its author fields:
# an array of objects {reader: [[name, address], ...]}, as JSON.
import email, email.policy, email.utils, inspect, json, sys
from email.header import decode_header, make_header

FIELDS = ("From", "Sender", "Resent-From", "Resent-Sender")


def decoded(text):
    try:
        return str(make_header(decode_header(text)))
    except Exception:
        return text


def get(values, **how):
    return [[decoded(name), address] for name, address in email.utils.getaddresses(values, **how)]


def compat(raw):
    message = email.message_from_bytes(raw)
    values = [str(v) for name in FIELDS for v in message.get_all(name, [])]
    unfolded = [v.replace("\r", "").replace("\n", "") for v in values]
    seen = {
        "getaddresses": get(values),
        "getaddresses, decoded first": get([decoded(v) for v in unfolded]),
        "parseaddr": [[decoded(n), a] for n, a in map(email.utils.parseaddr, values)],
        "parseaddr, decoded first": [list(email.utils.parseaddr(decoded(v))) for v in unfolded],
    }
    if "strict" in inspect.signature(email.utils.getaddresses).parameters:
        seen["getaddresses, not strict"] = get(values, strict=False)
        seen["getaddresses, not strict, decoded first"] = get([decoded(v) for v in unfolded], strict=False)
    return seen


def modern(raw):
    message = email.message_from_bytes(raw, policy=email.policy.default)
    return {
        "policy.default": [
            [a.display_name, a.addr_spec] for name in FIELDS for v in message.get_all(name, []) for a in v.addresses
        ]
    }


seen = []
for header in json.load(sys.stdin):
    raw = header.encode()
    seen.append({**compat(raw), **modern(raw)})
json.dump(seen, sys.stdout)
