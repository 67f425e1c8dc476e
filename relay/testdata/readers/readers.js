// What readers.py does, with nodemailer's addressparser, which mailparser uses too.
const { existsSync, readFileSync } = require('fs');
const at = ['/lib/addressparser', '/dist/cjs/addressparser'].map(p => process.argv[2] + p).find(existsSync);
const found = require(at);
const parse = found.addressparser || found.default || found;
const headers = JSON.parse(readFileSync(0, 'utf8'));
const flat = list => list.flatMap(a => (a.group ? flat(a.group) : [[a.name || '', a.address || '']]));
const octets = (how, text) =>
    /b/i.test(how)
        ? Buffer.from(text, 'base64')
        : Buffer.from(text.replace(/_/g, ' ').replace(/=([0-9a-f]{2})/gi, (_, hex) => String.fromCharCode(parseInt(hex, 16))), 'latin1');
const decoded = text =>
    text.replace(/(\?=)\s+(?==\?)/g, '$1').replace(/=\?([^?*]+)(?:\*[^?]*)?\?([bq])\?([^?]*)\?=/gi, (word, charset, how, raw) => {
        try {
            return new TextDecoder(charset).decode(octets(how, raw));
        } catch {
            return word;
        }
    });
const named = list => list.map(([name, address]) => [decoded(name), address]);
const see = (values, how) => named(values.flatMap(v => flat(parse(v, how))));
process.stdout.write(
    JSON.stringify(
        headers.map(header => {
            const fields = header.split(/\r\n(?![ \t])/).map(f => /^(?:Resent-)?(?:From|Sender):([^]*)/i.exec(f));
            const values = fields.filter(Boolean).map(m => m[1]);
            return {
                'addressparser, decoded first': see(values.map(v => decoded(v.replace(/\r\n/g, '')))),
                addressparser: see(values.map(v => v.replace(/\r\n/g, ''))),
                'addressparser, folded': see(values),
                'addressparser, flat': see(values.map(v => v.replace(/\r\n/g, '')), { flatten: true })
            };
        })
    )
);
