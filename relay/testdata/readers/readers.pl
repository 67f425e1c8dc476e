# What readers.py does, with Perl's Mail::Address and Email::Address::XS.
use strict;
use warnings;
use Email::Address::XS;
use Encode;
use JSON::PP;
use Mail::Address;

sub decoded { my $text = shift // ''; my $d = eval { decode('MIME-Header', $text) }; return $d // $text }

local $/;
my @seen;
for my $header (@{ decode_json(<STDIN>) }) {
	my @values;
	for my $field (split /\r\n(?![ \t])/, $header) {
		push @values, $1 if $field =~ /^(?:Resent-)?(?:From|Sender):(.*)/is;
	}
	my %seen = map { $_ => [] } 'Mail::Address', 'Mail::Address, folded', 'Email::Address::XS', 'Mail::Address, decoded first', 'Email::Address::XS, decoded first';
	for my $folded (@values) {
		(my $value = $folded) =~ s/\r\n//g;
		my %text = ('' => $value, ', decoded first' => decoded($value), ', folded' => $folded);
		for my $how (keys %text) {
			for my $box (Mail::Address->parse($text{$how})) {
				push @{ $seen{"Mail::Address$how"} }, map { [decoded($_), $box->address] } grep { defined } $box->phrase, $box->comment, $box->name;
			}
			for my $box (Email::Address::XS->parse($text{$how})) {
				push @{ $seen{"Email::Address::XS$how"} }, map { [decoded($_), $box->address // ''] } $box->phrase, $box->comment;
			}
		}
	}
	push @seen, \%seen;
}
print encode_json(\@seen);
