// What readers.py does, with nodemailer's addressparser, which mailparser uses too.
const { existsSync, readFileSync } = require('fs');
const at = ['/lib/addressparser', '/dist/cjs/addressparser'].map(p => process.argv[2] + p).find(existsSync);
const found = require(at);
const parse = found.addressparser || found.default || found;
const headers = JSON.parse(readFileSync(0, 'utf8'));
const flat = list => list.flatMap(a => (a.group ? flat(a.group) : [[a.name || '', a.address || '']]));
const see = (values, how) => values.flatMap(v => flat(parse(v, how)));
process.stdout.write(
    JSON.stringify(
        headers.map(header => {
            const fields = header.split(/\r\n(?![ \t])/).map(f => /^(?:Resent-)?(?:From|Sender):([^]*)/i.exec(f));
            const values = fields.filter(Boolean).map(m => m[1]);
            return {
                addressparser: see(values.map(v => v.replace(/\r\n/g, ''))),
                'addressparser, folded': see(values),
                'addressparser, flat': see(values.map(v => v.replace(/\r\n/g, '')), { flatten: true })
            };
        })
    )
);
