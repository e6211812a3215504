# The primary server that Debian 12 does not have: it takes SIG(0) (RFC 2931).
#
#   perl sig0.pl PORT FILE
#
# Stands before a primary server on PORT of loopback.  An update goes there, signed with the TSIG key in FILE, if
# Net::DNS::SEC verifies its SIG(0) with a KEY record that the zone has at the signer's name; else it is refused.
# Questions go there as they are.  Prints its own port, and then a line for each update.
use strict;
use warnings;
use IO::Socket::INET;
use Net::DNS;
use Net::DNS::SEC;

my ($primary, $tsig) = @ARGV;
my $server = IO::Socket::INET->new(LocalAddr => "127.0.0.1", Proto => "tcp", Listen => 8) or die "no socket: $@";
$| = 1;
print $server->sockport, "\n";
while (my $client = $server->accept) {
    my $octets = read_message($client) or next;
    write_message($client, is_update($octets) ? update($octets) : ask($octets));
}

sub is_update {
    return length $_[0] >= 12 && (unpack("C", substr $_[0], 2, 1) >> 3) == 5;
}

# The response to an update.
sub update {
    my ($octets) = @_;
    my $fault = eval { fault($octets) } // "it cannot be read";
    print $fault || "verified", "\n";
    my ($id, $rcode) = (substr($octets, 0, 2), 5);
    if (!$fault) {
        my $update = Net::DNS::Packet->decode(\$octets);
        $update->pop("additional");
        $update->sign_tsig($tsig);
        my $response = Net::DNS::Packet->decode(\ask($update->data));
        $rcode = unpack("n", substr $response->data, 2, 2) & 15;
    }
    return $id . pack "n5", 5 << 11 | 1 << 15 | $rcode, (0) x 4;
}

# Why an update is not to be carried out; empty: it is.
sub fault {
    my ($octets) = @_;
    my $update = Net::DNS::Packet->decode(\$octets);
    # Of a message that is cut off it gives what there is, and says so here.
    return "it cannot be read" if $@;
    my $sig = $update->sigrr;
    return "it has no SIG(0)" unless $sig && $sig->type eq "SIG";
    my $answer = Net::DNS::Packet->decode(\ask(Net::DNS::Packet->new($sig->signame, "KEY")->data));
    my @keys = grep { $_->type eq "KEY" && lc $_->owner eq lc $sig->signame } $answer->answer;
    return "its signer has no KEY" unless @keys;
    return $update->verify(\@keys) ? "" : $update->verifyerr =~ s/\n/; /gr;
}

sub ask {
    my ($octets) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $primary, Proto => "tcp") or die "gone: $@";
    write_message($socket, $octets);
    return read_message($socket);
}

# RFC 1035 s4.2.2: two octets of length come first.
sub write_message {
    my ($socket, $octets) = @_;
    print $socket pack "n/a*", $octets;
    $socket->flush;
}

sub read_message {
    my ($socket) = @_;
    (read($socket, my $size, 2) // 0) == 2 or return "";
    read($socket, my $octets, unpack "n", $size);
    return $octets;
}
