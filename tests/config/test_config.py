"""What a configuration may say, and what is told of one that is wrong."""

from dataclasses import fields
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hushwire.config import Config, ConfigError, Dns, Esp, Host, Ike, PlaneChoice, Rule, Start, parse
from hushwire.config.model import NameServer
from hushwire.config.proposal import CIPHERS, NUMBERS
from hushwire.config.read import NEEDED, READERS
from hushwire.crypto.suite import ENCR, INTEG, KE, PRF
from hushwire.ike.settings import Settings
from hushwire.policy.assurance import Assurance
from hushwire.policy.pad import Identity
from hushwire.policy.sad import Mode
from hushwire.policy.spd import Action
from hushwire.wire.registry import EncrID, EsnID, IDType, IntegID, KeID, PrfID

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
HOST = '[host]\nname = "alice.example"\n'


def rule(text: str) -> Rule:
    (only,) = parse(f"{HOST}[[rule]]\n{text}", "alice.toml").rules
    return only


def mistakes(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "alice.toml")
    assert str(caught.value).splitlines() == list(caught.value.mistakes)
    return caught.value.mistakes


# --- What is right ---------------------------------------------------------------------------------------------------


def test_a_name_is_enough() -> None:
    assert rule('peer = "Bob.Example."') == Rule("bob.example", Assurance.NAMED, Action.BLOCK, Mode.TRANSPORT)


def test_defaults() -> None:
    assert parse(HOST, "alice.toml") == Config(Host("alice.example"), Dns(), Ike(), Esp(), ())


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_examples(path: Path) -> None:
    assert parse(path.read_text(), path.name).rules


def test_the_example_of_everything_has_every_key_and_the_defaults() -> None:
    text = (EXAMPLES / "all.toml").read_text()
    assert parse(text, "all.toml") == Config(Host("alice.example"), rules=(Rule("bob.example"),))
    said = {line.removeprefix("# ").partition(" =")[0] for line in text.splitlines() if " = " in line}
    assert said == {key for readers in READERS.values() for key in readers}


@pytest.mark.parametrize("kind", READERS, ids=lambda kind: kind.__name__)
def test_every_field_can_be_set_and_every_key_is_a_field(kind: type) -> None:
    assert [key.replace("-", "_") for key in READERS[kind]] == [field.name for field in fields(kind)]


def test_every_setting() -> None:
    text = """
        [host]
        name = "alice.example"
        key = "/k"
        plane = "userspace"
        user = "_hushwire"
        trusted = "/t"
        state = "/s"
        control = "/c"
        peer-socket = "/p"
        port = 1500
        nat-port = 14500
        addresses = ["192.0.2.1", "2001:db8::1"]
        [dns]
        trust-anchor = "/a"
        forward = ["127.0.0.1@5353", "::1", "192.0.2.53#dns.example", "192.0.2.53@8853#Dns.Example"]
        [ike]
        proposals = ["aes128-sha256-prfsha512-modp2048"]
        lifetime = 600
        liveness = 5
        retransmit = [1, 2.5]
        [esp]
        proposals = ["aes256gcm16-x448", "chacha20poly1305-noesn"]
        lifetime = 60
        packets = 5000
        replay-window = 64
        [[rule]]
        peer = "moon"
        require = "trusted"
        below = "clear"
        mode = "tunnel"
        key = "/moon.pem"
        address = "192.0.2.2"
        identity = "root@moon.example"
        own-identity = "192.0.2.1"
        protocol = "udp"
        local-port = 53
        remote-port = 54
        local-networks = ["10.1.0.0/16"]
        remote-networks = ["10.2.0.0/16"]
        start = "connect"
    """
    both = (EsnID.ESN, EsnID.NO_ESN)
    config = parse(text, "alice.toml")
    addresses = (ip_address("192.0.2.1"), ip_address("2001:db8::1"))
    assert config.host == Host(
        "alice.example", "/k", PlaneChoice.USERSPACE, "_hushwire", "/t", "/s", "/c", "/p", 1500, 14500, addresses
    )
    assert (config.host.questions, Host("a.example").questions) == ("/p", "/run/hushwire/peer.sock")
    assert config.dns.trust_anchor == "/a"
    assert config.dns.forward == (
        NameServer(ip_address("127.0.0.1"), 5353), NameServer(ip_address("::1"), 53),
        NameServer(ip_address("192.0.2.53"), 853, "dns.example"),
        NameServer(ip_address("192.0.2.53"), 8853, "dns.example"),
    )  # fmt: skip
    (ike,) = config.ike.proposals
    assert (ike.encr, ike.integ) == (((EncrID.AES_CBC, 128),), (IntegID.HMAC_SHA2_256_128,))
    assert (ike.prf, ike.ke) == ((PrfID.HMAC_SHA2_512,), (KeID.MODP_2048,))
    assert config.ike == Ike((ike,), 600, 5, (1.0, 2.5))
    first, second = config.esp.proposals
    assert (first.encr, first.integ, first.ke, first.esn) == (((EncrID.AES_GCM_16, 256),), (), (KeID.CURVE448,), both)
    assert (second.encr, second.ke, second.esn) == (((EncrID.CHACHA20_POLY1305, 256),), (), (EsnID.NO_ESN,))
    assert config.esp == Esp((first, second), 60, 5000, 64)
    assert config.rules == (
        Rule(
            peer="moon",
            require=Assurance.TRUSTED,
            below=Action.CLEAR,
            mode=Mode.TUNNEL,
            key="/moon.pem",
            address=ip_address("192.0.2.2"),
            identity=Identity(IDType.RFC822_ADDR, b"root@moon.example"),
            own_identity=Identity(IDType.IPV4_ADDR, bytes((192, 0, 2, 1))),
            protocol=17,
            local_port=53,
            remote_port=54,
            local_networks=(IPv4Network("10.1.0.0/16"),),
            remote_networks=(IPv4Network("10.2.0.0/16"),),
            start=Start.CONNECT,
        ),
    )


def test_a_key_or_a_shared_key_makes_a_peer_trusted() -> None:
    assert rule('peer = "192.0.2.2"\nkey = "/k"').require is Assurance.TRUSTED
    assert rule('peer = "192.0.2.2"\npsk = "/k"').require is Assurance.TRUSTED


def test_defaults_are_those_of_ike() -> None:
    settings, config = Settings(Identity.fqdn("alice.example"), None), parse(HOST, "alice.toml")
    assert (settings.ike_offers, settings.esp_offers) == (config.ike.proposals, config.esp.proposals)
    assert (settings.ike_port, settings.nat_port) == (config.host.port, config.host.nat_port)
    assert (settings.ike_lifetime, settings.child_lifetime) == (config.ike.lifetime, config.esp.lifetime)
    assert (settings.child_packets, settings.replay_window) == (config.esp.packets, config.esp.replay_window)
    assert (settings.liveness, settings.retransmit) == (config.ike.liveness, config.ike.retransmit)


def test_peers() -> None:
    assert rule('peer = "2001:db8::2"\npsk = "/k"').peer == ip_network("2001:db8::2/128")
    assert rule('peer = "192.0.2.0/24"\nrequire = "clear"').peer == ip_network("192.0.2.0/24")
    assert rule('peer = "bob.example"').name == "bob.example"
    assert rule('peer = "192.0.2.2"\npsk = "/k"').name is None


def test_what_a_peer_must_say_it_is() -> None:
    assert rule('peer = "bob.example"').expected == Identity.fqdn("bob.example")
    assert rule('peer = "192.0.2.2"\npsk = "/k"').expected == Identity.address(ip_address("192.0.2.2"))
    assert rule('peer = "192.0.2.2"\npsk = "/k"\nidentity = "moon"').expected == Identity.fqdn("moon")


def test_every_word_of_a_proposal_can_be_computed() -> None:
    known: dict[type, object] = {PrfID: PRF, IntegID: INTEG, KeID: {*KE, KeID.NONE}, EsnID: EsnID}
    assert all(bits in ENCR[encr].key_bits for encr, bits in CIPHERS.values())
    assert all(value in known[type(value)] for value in NUMBERS.values())  # type: ignore[operator]
    assert {value for value in NUMBERS.values() if isinstance(value, KeID)} == known[KeID]


def test_the_narrower_of_two_rules_may_stand_beside_the_wider() -> None:
    text = f"""{HOST}
        [[rule]]
        peer = "192.0.2.0/24"
        require = "clear"
        [[rule]]
        peer = "192.0.2.2"
        psk = "/k"
        [[rule]]
        peer = "192.0.2.2"
        psk = "/k"
        protocol = "tcp"
        mode = "tunnel"
    """
    assert len(parse(text, "alice.toml").rules) == 3


# --- What is wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("x = ", "this is not TOML: Invalid value (at end of document)"),
        ("", 'host.name: missing; give the full name of this host, such as name = "alice.example"'),
        (f"{HOST}[hots]", 'hots: no such table; did you mean "host"?'),
        (f"{HOST}[zzz]", "zzz: no such table; there are host, dns, ike, esp, rule"),
        (f"rules = 1\n{HOST}", 'rules: no such table; did you mean "rule"?'),
        (f"dns = 1\n{HOST}", "dns: 1 is not a table; write [dns] on a line of its own, its keys below"),
        (f"{HOST}[rule]", "rule: not a list of tables; write [[rule]], with two brackets, before each"),
        (f"{HOST}plan = 'auto'", 'host.plan: no such key; did you mean "plane"?'),
        (f"{HOST}'a\\b c' = 1", "host.'a\\\\b c': no such key; there are name, "),
        (f"{HOST}weight = 1", "host.weight: no such key; there are name, key, plane, "),
        ("[host]\nname = 'a b'", "host.name: 'a b' is no host name: "),
        ("[host]\nname = 5", 'host.name: 5 is not a text; write one in quotes, such as "alice"'),
        (f"{HOST}key = 'host.key'", "host.key: 'host.key' is not an absolute path; begin it with \"/\""),
        (f"{HOST}key = '/a\\tb'\n[[rule]]", "rule[1].peer: missing; say whom the rule is about, such as peer = "),
        (f"{HOST}plane = 'xfrm'", "host.plane: 'xfrm' is not known here; write \"auto\" or \"kernel\" or \"user"),
        (f"{HOST}port = true", "host.port: True is no port; write a whole number from 1 to 65535"),
        (f"{HOST}port = 65536", "host.port: 65536 is no"),
        (f'{HOST}"a\\nb" = 1', "host.'a\\nb': no such key; there are name, "),
        (f"{HOST}addresses = []", "host.addresses: [] is not a list with something in it; put it in brackets: [...]"),
        (f"{HOST}addresses = ['fe80::1%eth0']", "host.addresses: 'fe80::1%eth0' is no address of one host"),
        (f"{HOST}addresses = ['224.0.0.1']", "host.addresses: '224.0.0.1' is no address of one host"),
        (f"{HOST}[dns]\nforward = ['dns.example']", "dns.forward: 'dns.example' is no address; write one such as"),
        (f"{HOST}[dns]\nforward = ['::1@x']", "dns.forward: '::1@x' has no port after its @; write one such as"),
        (f"{HOST}[dns]\nforward = ['::1#']", "dns.forward: '' is not a text; write one"),
        (f"{HOST}[dns]\nforward = ['::1#a b']", "dns.forward: 'a b' is no host name: "),
        (f"{HOST}[dns]\nlisten = ['::1#a.example']", "dns.listen: '::1#a.example' is no address; write one such as"),
        (f"{HOST}[dns]\nlisten = ['192.0.2.1']", "dns.listen: '192.0.2.1' is not of loopback; write one such as"),
        (f"{HOST}[ike]\nlifetime = 1.5", "ike.lifetime: 1.5 is no number of seconds; write a whole number from 10"),
        (f"{HOST}[ike]\nretransmit = [nan]", "ike.retransmit: [nan] is no list of waits; write 1 to 20 of"),
        (f"{HOST}[[rule]]\npeer = 'Bob..example'", "rule[1].peer: 'Bob..example' is no host name: an empty label"),
        (f"{HOST}[[rule]]\npeer = '192.0.2'", "rule[1].peer: '192.0.2' is no address; write one such as"),
        (f"{HOST}[[rule]]\npeer = '192.0.2.2/24'", "rule[1].peer: '192.0.2.2/24' is no prefix; did you mean \"192"),
        (f"{HOST}[[rule]]\npeer = 'x/y'", "rule[1].peer: 'x/y' is no prefix; write one such as"),
        (f"{HOST}[[rule]]\npeer = 'b.example'\nprotocol = 'tpc'", "rule[1].protocol: 'tpc' is no protocol; write"),
    ],
)  # fmt: skip
def test_one_setting_is_wrong(text: str, mistake: str) -> None:
    assert mistakes(text)[0].startswith(f"alice.toml: {mistake}")


@pytest.mark.parametrize(
    ("proposal", "mistake"),
    [
        ("aes256gcm16-prfsha256", "has no key exchange"),
        ("aes256gcm16-x25519", "has no pseudo-random function"),
        ("prfsha256-x25519", "has no cipher"),
        ("aes256-prfsha256-x25519", "does not protect integrity"),
        ("aes256gcm16-sha256-prfsha256-x25519", 'protects integrity twice; leave out "sha256"'),
        ("aes256-aes256gcm16-sha256-prfsha256-x25519", "mixes ciphers"),
        ("aes256gcm16-prfsha256-x25519-esn", "speaks of sequence numbers"),
        ("aes256gcm16-prfsha256-x25519-nopfs", "would have no key exchange"),
        ("aes256gcm16-prfsha256-modp1024", "'modp1024' is no algorithm here; there are aes128gcm16, "),
        ("aes256gcm16-prfsha256-x25519-x25519", 'says "x25519" twice'),
    ],
)
def test_a_proposal_is_wrong(proposal: str, mistake: str) -> None:
    (line,) = mistakes(f'{HOST}[ike]\nproposals = ["{proposal}"]')
    assert line.startswith("alice.toml: ike.proposals: ")
    assert mistake in line


def test_an_esp_proposal_has_no_prf() -> None:
    (line,) = mistakes(f'{HOST}[esp]\nproposals = ["aes256gcm16-prfsha256"]')
    assert line.startswith("alice.toml: esp.proposals: 'aes256gcm16-prfsha256' has a pseudo-random function")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ('peer = "alice.example"', "peer: this is host.name, the host itself"),
        ('peer = "bob"', 'peer: "bob" has no domain'),
        ('peer = "192.0.2.2"\nkey = "/k"\npsk = "/p"', "psk: the peer proves itself by its key or by a shared one"),
        ('peer = "bob.example"\nrequire = "named"\nkey = "/k"', 'require: a "named" peer\'s key comes from the DNS'),
        ('peer = "192.0.2.2"\nrequire = "clear"\npsk = "/k"', 'require: "clear" asks for no proof'),
        ('peer = "bob.example"\nrequire = "encrypted"\nkey = "/k"', 'require: "encrypted" takes any key at first'),
        ('peer = "bob.example"\nrequire = "encrypted"\naddress = "192.0.2.2"', "address: it comes from the DNS"),
        ('peer = "192.0.2.2"\nrequire = "encrypted"\nmode = "tunnel"', "mode: a stranger speaks for his own address"),
        ('peer = "192.0.2.2"\nrequire = "continuous"\npsk = "/p"', 'require: "continuous" takes any key at first'),
        ('peer = "bob.example"\naddress = "192.0.2.2"', "address: it comes from the DNS"),
        ('peer = "bob"\nkey = "/k"', "address: missing; a trusted peer is not looked up"),
        ('peer = "192.0.2.2"\naddress = "192.0.2.2"\npsk = "/k"', "address: peer is an address already"),
        ('peer = "192.0.2.0/24"\nkey = "/k"', "key: one key is one peer's"),
        ('peer = "*.example"\npsk = "/k"', "require: where a trusted peer is has to be written down"),
        ('peer = "192.0.2.0/24"\npsk = "/k"\nidentity = "bob.example"', "identity: it is one peer's"),
        ('peer = "192.0.2.0/24"\nmode = "tunnel"', "mode: a tunnel ends at one peer"),
        ('peer = "*"\nstart = "connect"', "start: nobody can be sought among many"),
        ('peer = "192.0.2.2"\nroams = true', "roams: an address does not roam"),
        (
            'peer = "bob.example"\nroams = true\nkey = "/k"\naddress = "192.0.2.2"',
            "roams: only the DNS can tell the key",
        ),
        ('peer = "bob.example"\nanonymous = "peer"', "anonymous: of such a peer no more is known"),
        ('peer = "192.0.2.2"\nkey = "/k"\nanonymous = "both"', "anonymous: of such a peer no more is known"),
        ('peer = "192.0.2.2"\nrequire = "clear"\nanonymous = "us"', 'anonymous: to "clear" traffic'),
        ('peer = "192.0.2.2"\npsk = "/k"\nanonymous = "us"', "psk: a shared key proves both ends"),
        ('peer = "bob.example"\nanonymous = "us"\nown-identity = "eve.example"', "own-identity: who is anonymous"),
        ('peer = "192.0.2.0/24"\naddressing = "synthetic"', "addressing: synthetic addresses are made for names"),
        ('peer = "b.example"\nmode = "tunnel"\naddressing = "synthetic"', "addressing: in a tunnel the networks say"),
        ('peer = "bob.example"\nremote-port = 80', "protocol: ports need a protocol"),
        ('peer = "bob.example"\nremote-port = 80\nprotocol = "icmp"', "protocol: ports need a protocol"),
        ('peer = "bob.example"\nremote-networks = ["10.0.0.0/8"]', "mode: networks behind a host need a tunnel"),
        (
            'peer = "b.example"\nmode = "tunnel"\nlocal-networks = ["10.0.0.0/8"]\nremote-networks = ["2001:db8::/32"]',
            "local-networks: IPv4 or IPv6 is on one side only",
        ),
    ],
)
def test_settings_of_a_rule_do_not_fit(text: str, mistake: str) -> None:
    (line,) = mistakes(f"{HOST}[[rule]]\n{text}")
    assert line.startswith(f"alice.toml: rule[1].{mistake}")
    assert "; " in line


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('peer = "bob.example"', 'peer = "BOB.example."'),
        ('peer = "192.0.2.2"\npsk = "/k"', 'peer = "moon"\naddress = "192.0.2.2"\nkey = "/k"'),
        (
            'peer = "b.example"\nprotocol = "tcp"\nlocal-port = 80',
            'peer = "b.example"\nprotocol = "tcp"\nremote-port = 22',
        ),
        (
            'peer = "b.example"\nmode = "tunnel"\nremote-networks = ["10.0.0.0/8"]',
            'peer = "c.example"\nmode = "tunnel"\nremote-networks = ["192.0.2.0/24", "10.0.0.0/8"]',
        ),
    ],
)
def test_two_rules_speak_of_the_same_packets(one: str, other: str) -> None:
    (line,) = mistakes(f"{HOST}[[rule]]\n{one}\n[[rule]]\n{other}")
    assert line.startswith("alice.toml: rule[2]: speaks of the same packets as rule[1]")


def test_one_peer_proves_itself_in_one_way() -> None:
    text = f"""{HOST}
        [[rule]]
        peer = "192.0.2.2"
        psk = "/k"
        [[rule]]
        peer = "192.0.2.2"
        protocol = "tcp"
        psk = "/another"
    """
    (line,) = mistakes(text)
    assert line.startswith("alice.toml: rule[2].require: rule[1] is about the same peer")


def test_every_mistake_is_told() -> None:
    text = 'hots = 1\n[host]\nport = 0\n[[rule]]\npeer = "a b"\n[[rule]]\npear = "bob.example"'
    assert [line.split(": ")[1] for line in mistakes(text)] == [
        "hots", "host.port", "host.name", "rule[1].peer", "rule[2].pear", "rule[2].peer",
    ]  # fmt: skip


def test_what_must_be_given_is_named() -> None:
    missing = {kind for kind in READERS for field in fields(kind) if field.name in ("name", "peer")}
    assert set(NEEDED) == missing


def test_deep_nesting_is_a_mistake_like_any_other() -> None:
    assert mistakes("x = " + "[" * 100_000)[0].startswith("alice.toml: this is not TOML: ")


# --- Any text gives a configuration or mistakes, each on one line ----------------------------------------------------

LEAVES = st.one_of(
    st.booleans().map(lambda truth: str(truth).lower()),
    st.integers().map(str),
    st.sampled_from(["1.5", "nan", "inf", "[]", "{}", "1979-05-27", "['a']", "[1, {}]"]),
    st.text(st.characters(exclude_categories=["Cc", "Cs"], exclude_characters="'"), max_size=30).map("'{}'".format),
)
KEYS = sorted({key for readers in READERS.values() for key in readers})


@given(st.dictionaries(st.sampled_from([*READERS, Rule]), st.dictionaries(st.sampled_from(KEYS), LEAVES)))
def test_any_document(document: dict[type, dict[str, str]]) -> None:
    lines = []
    for kind, table in document.items():
        lines.append("[[rule]]" if kind is Rule else f"[{kind.__name__.lower()}]")
        lines += [f"{key} = {leaf}" for key, leaf in table.items()]
    assert all(line.startswith("any.toml: ") and line.isprintable() for line in outcome("\n".join(lines)))


@given(st.text())
def test_any_text(text: str) -> None:
    assert all(line.startswith("any.toml: ") for line in outcome(text))


def outcome(text: str) -> tuple[str, ...]:
    """The mistakes in a text; anything but a configuration or a ConfigError fails the test."""
    try:
        parse(text, "any.toml")
    except ConfigError as error:
        return error.mistakes
    return ()


def test_a_port_of_a_network_may_be_clear() -> None:
    text = (
        HOST
        + """
[[rule]]
peer = "192.0.2.0/24"
group = "private"
[[rule]]
peer = "192.0.2.0/24"
group = "clear"
protocol = "tcp"
remote-port = 443
"""
    )
    assert len(parse(text, "alice.toml").rules) == 2
    (line,) = mistakes(text.replace("192.0.2.0/24", "bob.example"))
    assert "give both the same of everything but below" in line


def test_rules_about_one_peer_say_the_same_of_it_as_a_whole() -> None:
    (line,) = mistakes(
        HOST
        + """
[[rule]]
peer = "bob.example"
group = "private"
[[rule]]
peer = "bob.example"
group = "clear-or-private"
protocol = "tcp"
remote-port = 80
"""
    )
    assert line.startswith("alice.toml: rule[2].require: rule[1] is about the same peer")


@pytest.mark.parametrize("rest", ["private", "clear"])
def test_the_narrowest_prefix_has_to_speak_of_all_packets(rest: str) -> None:
    text = (
        HOST
        + """
[[rule]]
peer = "192.0.2.0/24"
group = "private-or-clear"
[[rule]]
peer = "192.0.2.2"
group = "private"
protocol = "tcp"
remote-port = 80
"""
    )
    (line,) = mistakes(text)
    assert line.startswith("alice.toml: rule[2].protocol: of 192.0.2.2/32 only the narrower rules count")
    assert len(parse(f'{text}[[rule]]\npeer = "192.0.2.2"\ngroup = "{rest}"\n', "alice.toml").rules) == 3


def test_either_root_servers_or_a_forwarder() -> None:
    (line,) = mistakes(f'{HOST}[dns]\nroots = ["192.0.2.53"]\nforward = ["192.0.2.54"]')
    assert line.startswith("alice.toml: dns.roots: with dns.forward nobody asks them")
    assert parse(f'{HOST}[dns]\nroots = ["192.0.2.53@5353"]', "alice.toml").dns.roots[0].port == 5353


def test_a_rule_about_everything_needs_name_servers() -> None:
    everything = '[[rule]]\npeer = "0.0.0.0/0"\n'
    (line,) = mistakes(HOST + everything)
    assert line.startswith("alice.toml: rule[1].peer: hushwire asks name servers everywhere")
    assert parse(HOST + '[dns]\nforward = ["192.0.2.53"]\n' + everything, "alice.toml").rules


def test_two_sockets_are_not_one() -> None:
    (line,) = mistakes('[host]\nname = "a.example"\ncontrol = "/c"\npeer-socket = "/c"\n')
    assert line == "alice.toml: host.peer-socket: the same as host.control; give it a path of its own"
