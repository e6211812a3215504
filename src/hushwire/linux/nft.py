"""The packet filter, for what the SPD cannot say: by which device an IPv6 packet came in (nftables).

Its commands are text of our own making, and each run is one transaction: a set is never empty between two states.
"""

from typing import Any

import cffi

LIBRARY = "libnftables.so.1"
OUTPUT_TERSE = 1 << 11

DECLARATIONS = """
struct nft_ctx *nft_ctx_new(uint32_t flags);
void nft_ctx_free(struct nft_ctx *ctx);
int nft_ctx_buffer_error(struct nft_ctx *ctx);
int nft_ctx_buffer_output(struct nft_ctx *ctx);
void nft_ctx_output_set_flags(struct nft_ctx *ctx, unsigned int flags);
const char *nft_ctx_get_error_buffer(struct nft_ctx *ctx);
const char *nft_ctx_get_output_buffer(struct nft_ctx *ctx);
int nft_run_cmd_from_buffer(struct nft_ctx *ctx, const char *buf);
"""


class NftError(OSError):
    """The packet filter would not have it."""


class Nft:
    """The packet filter of this network namespace.  Needs CAP_NET_ADMIN."""

    def __init__(self) -> None:
        self._ffi, self._library = _load()
        self._context = self._library.nft_ctx_new(0)
        if self._context == self._ffi.NULL:
            raise NftError("libnftables: no memory for a context")
        self._library.nft_ctx_buffer_error(self._context)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_output_set_flags(self._context, OUTPUT_TERSE)

    def run(self, *commands: str) -> str:
        """Commands in nft's own language, all or none; and what they print, without the elements of sets."""
        if self._library.nft_run_cmd_from_buffer(self._context, "\n".join(commands).encode()):
            said = self._text(self._library.nft_ctx_get_error_buffer(self._context))
            raise NftError("packet filter: " + " ".join(said.split()))
        return self._text(self._library.nft_ctx_get_output_buffer(self._context))

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)

    def _text(self, buffer: Any) -> str:
        return str(self._ffi.string(buffer).decode(errors="replace"))


def _load() -> tuple[Any, Any]:
    ffi = cffi.FFI()
    ffi.cdef("struct nft_ctx;" + DECLARATIONS)
    try:
        return ffi, ffi.dlopen(LIBRARY)
    except OSError:
        raise NftError(f"{LIBRARY} is not installed; the userspace plane needs it for IPv6") from None
