"""Negotiation of transforms (RFC 7296 s2.7, s3.3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hushwire.crypto.suite import IkeSuite
from hushwire.ike.errors import Rejected
from hushwire.policy.sad import EspSuite
from hushwire.wire.payload import Proposal, Transform
from hushwire.wire.registry import EncrID, EsnID, IntegID, KeID, NotifyType, PrfID, ProtocolID, TransformType

Cipher = tuple[EncrID, int]
"""An encryption transform and its key length in bits."""


@dataclass(frozen=True, slots=True)
class IkeOffer:
    """One IKE proposal: any one of each, in falling preference."""

    encr: tuple[Cipher, ...]
    integ: tuple[IntegID, ...]
    """Empty with AEADs: the two kinds never share a proposal (RFC 5282 s8)."""
    prf: tuple[PrfID, ...]
    ke: tuple[KeID, ...]


@dataclass(frozen=True, slots=True)
class EspOffer:
    """One ESP proposal: any one of each, in falling preference."""

    encr: tuple[Cipher, ...]
    integ: tuple[IntegID, ...]
    esn: tuple[EsnID, ...]
    ke: tuple[KeID, ...] = ()
    """For CREATE_CHILD_SA; empty: no fresh key exchange (RFC 7296 s1.3.1)."""


def not_below(offers: Sequence[EspOffer], bits: int) -> tuple[EspOffer, ...]:
    """The same without ciphers whose keys are shorter: what replaces an SA is no weaker (RFC 5660 s2)."""
    kept = (replace(each, encr=tuple(cipher for cipher in each.encr if cipher[1] >= bits)) for each in offers)
    return tuple(offer for offer in kept if offer.encr)


@dataclass(frozen=True, slots=True)
class IkeChoice:
    """What both ends want of an IKE SA."""

    suite: IkeSuite
    accepted: Proposal
    """For the responder to send back; its SPI is the initiator's."""


@dataclass(frozen=True, slots=True)
class EspChoice:
    """What both ends want of a Child SA."""

    suite: EspSuite
    ke: KeID
    """NONE: no fresh key exchange."""
    accepted: Proposal


def _transforms(*groups: Iterable[tuple[TransformType, int, int | None]]) -> tuple[Transform, ...]:
    return tuple(Transform(kind, number, length) for group in groups for kind, number, length in group)


# A cipher whose key length is fixed takes no Key Length attribute (RFC 7296 s3.3.5).
_FIXED_LENGTH = frozenset({EncrID.CHACHA20_POLY1305})


def _encr(ciphers: Iterable[Cipher]) -> list[tuple[TransformType, int, int | None]]:
    return [(TransformType.ENCR, encr, None if encr in _FIXED_LENGTH else bits) for encr, bits in ciphers]


def _plain(kind: TransformType, numbers: Iterable[int]) -> list[tuple[TransformType, int, int | None]]:
    return [(kind, number, None) for number in numbers]


def ike_proposals(offers: Sequence[IkeOffer], spi: bytes = b"", first_ke: KeID | None = None) -> tuple[Proposal, ...]:
    """The SA payload's proposals.  `spi` is empty in IKE_SA_INIT, 8 octets when rekeying (RFC 7296 s3.3.1)."""
    return tuple(
        Proposal(
            number, ProtocolID.IKE, spi,
            _transforms(
                _encr(offer.encr), _plain(TransformType.PRF, offer.prf), _plain(TransformType.INTEG, offer.integ),
                _plain(TransformType.KE, sorted(offer.ke, key=lambda ke: ke != first_ke)),
            ),
        )
        for number, offer in enumerate(offers, 1)
    )  # fmt: skip


def esp_proposals(offers: Sequence[EspOffer], spi: bytes, with_ke: bool) -> tuple[Proposal, ...]:
    """The SA payload's proposals for a Child SA with inbound `spi`; key exchange only in CREATE_CHILD_SA."""
    return tuple(
        Proposal(
            number, ProtocolID.ESP, spi,
            _transforms(
                _encr(offer.encr), _plain(TransformType.INTEG, offer.integ),
                _plain(TransformType.KE, offer.ke if with_ke else ()), _plain(TransformType.ESN, offer.esn),
            ),
        )
        for number, offer in enumerate(offers, 1)
    )  # fmt: skip


class _Offered:
    """One received proposal, by transform type.  Of what it may hold, only what we know by exact form counts."""

    def __init__(self, proposal: Proposal) -> None:
        self.proposal = proposal
        self.by_type: dict[int, list[Transform]] = {}
        for transform in proposal.transforms:
            self.by_type.setdefault(transform.type, []).append(transform)

    def cipher(self, ours: Iterable[Cipher]) -> Transform | None:
        for encr, bits in ours:
            length = None if encr in _FIXED_LENGTH else bits
            for transform in self.by_type.get(TransformType.ENCR, ()):
                if transform.id == encr and transform.key_length == length:
                    return transform
        return None

    def pick(self, kind: TransformType, ours: Iterable[int]) -> Transform | None:
        offered = self.by_type.get(kind, ())
        for number in ours:
            for transform in offered:
                if transform.id == number and transform.key_length is None:
                    return transform
        return None

    def integ(self, ours: tuple[IntegID, ...]) -> Transform | bool | None:
        """The integrity transform; None if there is to be none; False if the proposal does not fit."""
        if ours:
            return self.pick(TransformType.INTEG, ours) or False
        # RFC 7296 s3.3: with an AEAD, no integrity transform, or NONE.
        offered = self.by_type.get(TransformType.INTEG)
        if not offered:
            return None
        return self.pick(TransformType.INTEG, (IntegID.NONE,)) or False

    def knows_only(self, *kinds: TransformType) -> bool:
        """RFC 7296 s3.3.6: a proposal with a transform type that is not understood is not to be chosen."""
        return all(kind in kinds for kind in self.by_type)


def _bits(transform: Transform) -> int:
    return 256 if transform.id in _FIXED_LENGTH else transform.key_length or 0


def choose_ike(offers: Sequence[IkeOffer], proposals: Sequence[Proposal], hint: KeID | None = None) -> IkeChoice:
    """The first of our offers that fits one of the peer's; raises Rejected(NO_PROPOSAL_CHOSEN).

    `hint` is the group of the peer's KE payload: taken when acceptable, to spare a round trip (RFC 7296 s1.2).
    """
    for offer in offers:
        groups = sorted(offer.ke, key=lambda ke: ke != hint)
        for proposal in proposals:
            offered = _Offered(proposal)
            if proposal.protocol != ProtocolID.IKE or not offered.knows_only(
                TransformType.ENCR, TransformType.PRF, TransformType.INTEG, TransformType.KE
            ):
                continue
            encr, integ = offered.cipher(offer.encr), offered.integ(offer.integ)
            prf, ke = offered.pick(TransformType.PRF, offer.prf), offered.pick(TransformType.KE, groups)
            if encr is None or integ is False or prf is None or ke is None:
                continue
            chosen = tuple(t for t in (encr, prf, integ, ke) if isinstance(t, Transform))
            integ_id = IntegID(integ.id) if isinstance(integ, Transform) else IntegID.NONE
            suite = IkeSuite(EncrID(encr.id), _bits(encr), integ_id, PrfID(prf.id), KeID(ke.id))
            return IkeChoice(suite, Proposal(proposal.number, ProtocolID.IKE, proposal.spi, chosen))
    raise Rejected(NotifyType.NO_PROPOSAL_CHOSEN, "no IKE proposal in common")


def choose_esp(
    offers: Sequence[EspOffer], proposals: Sequence[Proposal], with_ke: bool, hint: KeID | None = None
) -> EspChoice:
    """The same for a Child SA.  `with_ke`: the exchange carries, or may carry, a fresh key exchange."""
    for offer in offers:
        for proposal in proposals:
            offered = _Offered(proposal)
            if proposal.protocol != ProtocolID.ESP or not _may_be_spi(proposal.spi) or not offered.knows_only(
                TransformType.ENCR, TransformType.INTEG, TransformType.KE, TransformType.ESN
            ):  # fmt: skip
                continue
            encr, integ = offered.cipher(offer.encr), offered.integ(offer.integ)
            # RFC 7296 s3.3.3: ESN is mandatory in an ESP proposal; some peers leave it out when it is "no".
            esn = offered.pick(TransformType.ESN, offer.esn)
            if encr is None or integ is False or (esn is None and TransformType.ESN in offered.by_type):
                continue
            groups: list[KeID] = sorted(offer.ke or (KeID.NONE,), key=lambda ke: ke != hint)
            ke = None
            if with_ke and TransformType.KE in offered.by_type:
                ke = offered.pick(TransformType.KE, [*groups, KeID.NONE])
                if ke is None:
                    continue
            chosen = tuple(t for t in (encr, integ, ke, esn) if isinstance(t, Transform))
            suite = EspSuite(
                EncrID(encr.id),
                _bits(encr),
                IntegID(integ.id) if isinstance(integ, Transform) else IntegID.NONE,
                esn is not None and esn.id == EsnID.ESN,
            )
            group = KeID(ke.id) if ke is not None else KeID.NONE
            return EspChoice(suite, group, Proposal(proposal.number, ProtocolID.ESP, proposal.spi, chosen))
    raise Rejected(NotifyType.NO_PROPOSAL_CHOSEN, "no ESP proposal in common")


def _may_be_spi(spi: bytes) -> bool:
    # RFC 4303 s2.1: 0 to 255 are reserved; and 0 in UDP would make an IKE message of an ESP packet (RFC 3948 s2.2).
    return len(spi) == 4 and spi > b"\0\0\0\xff"


def accepted_ike(offers: Sequence[IkeOffer], answer: Sequence[Proposal]) -> IkeChoice:
    """What a responder accepted, checked against what was offered (RFC 7296 s2.7); raises Rejected."""
    _one_of_each(answer)
    return choose_ike(offers, answer)


def accepted_esp(offers: Sequence[EspOffer], answer: Sequence[Proposal], with_ke: bool) -> EspChoice:
    """The same for a Child SA."""
    _one_of_each(answer)
    return choose_esp(offers, answer, with_ke)


def _one_of_each(answer: Sequence[Proposal]) -> None:
    if len(answer) != 1:
        raise Rejected(NotifyType.NO_PROPOSAL_CHOSEN, f"{len(answer)} proposals accepted instead of one")
    kinds = [transform.type for transform in answer[0].transforms]
    if len(set(kinds)) != len(kinds):
        raise Rejected(NotifyType.NO_PROPOSAL_CHOSEN, "two transforms of one type accepted")
