"""Unordered transactions in sign mode direct: building, signing, size and timestamps. Pure: no clock, no network.

A message is a pair of its type URL and its encoded bytes without the first field, ``creator``, which signing puts in
front. When the signer is not the participant (a "warm key" with grants), each message goes into a MsgExec of its own:
one MsgExec takes 99 messages at most, and does not tell which of them failed. Facts: docs/protocol/chain.md,
'Transactions', and docs/protocol/measured.md, 'Transactions on a real chain'; the encoding is canonical: ascending
fields, no defaults.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

import attrs

from dapi.chain.keyring import SigningKey
from dapi.chain.rpc_answers import tx_hash_of
from dapi.messages import cosmos_pb2

BATCH_TYPE_URL: Final = "/inference.inference.MsgSubmitPocBatch"
VALIDATION_TYPE_URL: Final = "/inference.inference.MsgSubmitPocValidation"
SEED_TYPE_URL: Final = "/inference.inference.MsgSubmitSeed"
HARDWARE_TYPE_URL: Final = "/inference.inference.MsgSubmitHardwareDiff"
CLAIM_TYPE_URL: Final = "/inference.inference.MsgClaimRewards"
EXEC_TYPE_URL: Final = "/cosmos.authz.v1beta1.MsgExec"
PUBLIC_KEY_TYPE_URL: Final = "/cosmos.crypto.secp256k1.PubKey"

# Gas costs nothing here, but the chain wants a limit; the network's own software sets this one.
DEFAULT_GAS_LIMIT: Final = 1_000_000_000

_SECOND: Final = 1_000_000_000
_SIGNATURE_BYTES: Final = 64
# The tag of field 1 with a length: the first byte of a message that has a creator.
_CREATOR_TAG: Final = 0x0A
# The longest encoding of a timestamp: five bytes of seconds until the year 3058, five of nanoseconds, and their tags.
_TIMESTAMP = cosmos_pb2.Timestamp(seconds=2**35 - 1, nanos=_SECOND - 1)


@attrs.frozen
class SignedTransaction:
    """A signed transaction.

    ``raw`` is the encoded TxRaw, ``hash`` the chain's name for it (64 upper-case hex digits). No block with a time
    later than ``timeout_ns`` (nanoseconds since 1970) takes it.
    """

    raw: bytes = attrs.field(repr=False)
    hash: str
    timeout_ns: int


class TransactionSigner:
    """Signs transactions of one key for one chain.

    ``account_number`` is that of the key's own account. ``participant_address`` is the creator of all messages; it may
    be another account's.
    """

    def __init__(
        self,
        key: SigningKey,
        chain_id: str,
        account_number: int,
        participant_address: str,
        gas_limit: int = DEFAULT_GAS_LIMIT,
    ) -> None:
        self._key = key
        self._chain_id = chain_id
        self._account_number = account_number
        self._creator = cosmos_pb2.Creator(creator=participant_address).SerializeToString()
        self._is_granted = key.address != participant_address
        self._auth_info = _auth_info(key.public_key, gas_limit)
        self._exec_fixed_bytes = cosmos_pb2.MsgExec(grantee=key.address).ByteSize()
        self._body_fixed_bytes = cosmos_pb2.TxBody(unordered=True, timeout_timestamp=_TIMESTAMP).ByteSize()
        self._raw_fixed_bytes = _field_size(len(self._auth_info)) + _field_size(_SIGNATURE_BYTES)

    def sign(self, messages: Sequence[tuple[str, bytes]], timeout_ns: int) -> SignedTransaction:
        """Put messages (type URL, encoded without creator) into one transaction, in this order, and sign it.

        ``timeout_ns`` must be unique to the nanosecond among all transactions of the key: see TimestampSource. Equal
        arguments give equal bytes. Raises ValueError without a message, and when a message has a creator.
        """
        if not messages:
            raise ValueError("a transaction needs a message")
        seconds, nanos = divmod(timeout_ns, _SECOND)
        body = cosmos_pb2.TxBody(
            messages=[self._complete(type_url, value) for type_url, value in messages],
            unordered=True,
            timeout_timestamp=cosmos_pb2.Timestamp(seconds=seconds, nanos=nanos),
        ).SerializeToString()
        document = cosmos_pb2.SignDoc(
            body_bytes=body,
            auth_info_bytes=self._auth_info,
            chain_id=self._chain_id,
            account_number=self._account_number,
        ).SerializeToString()
        raw = cosmos_pb2.TxRaw(
            body_bytes=body, auth_info_bytes=self._auth_info, signatures=[self._key.sign(document)]
        ).SerializeToString()
        return SignedTransaction(raw, tx_hash_of(raw), timeout_ns)

    def size_of(self, messages: Sequence[tuple[str, int]]) -> int:
        """Return how many bytes ``raw`` of these messages (type URL, encoded length without creator) has at most.

        Only the timestamp can make it shorter: its nanoseconds take up to six bytes less when they are few.
        """
        size = sum(self._size_in_body(url, length) for url, length in messages)
        return _field_size(self._body_fixed_bytes + size) + self._raw_fixed_bytes

    def _size_in_body(self, type_url: str, length: int) -> int:
        size = _field_size(_any_size(type_url, len(self._creator) + length))
        if not self._is_granted:
            return size
        return _field_size(_any_size(EXEC_TYPE_URL, self._exec_fixed_bytes + size))

    def _complete(self, type_url: str, value: bytes) -> cosmos_pb2.Any:
        if value[:1] == bytes([_CREATOR_TAG]):
            raise ValueError(f"a message {type_url} has a creator already")
        message = cosmos_pb2.Any(type_url=type_url, value=self._creator + value)
        if not self._is_granted:
            return message
        granted = cosmos_pb2.MsgExec(grantee=self._key.address, msgs=[message])
        return cosmos_pb2.Any(type_url=EXEC_TYPE_URL, value=granted.SerializeToString())


class TimestampSource:
    """Unique timestamps for unordered transactions of one key, in nanoseconds since 1970.

    The chain takes a pair of signer and timestamp once, and only from the block time to 10 minutes later. Timestamps
    ascend within the process; also over a restart if ``last`` is the greatest that was ever stored (0 for none). A
    ``last`` above what the chain takes now was made for a time that the chain never had, because a node told a false
    one: none could follow it for as long, so it is left out of account. Chance keeps two processes with one key apart:
    when both are busy, about one transaction in a million has a timestamp of the other process. The chain refuses it,
    and the next timestamp heals that.
    """

    #: How far a timestamp lies ahead of the block time at least; the network's own software uses this.
    TIMEOUT_NS: Final = 60 * _SECOND
    #: How far it lies ahead at most: the chain's 10 minutes.
    LIMIT_NS: Final = 600 * _SECOND
    #: The largest random distance between two timestamps for the same block time.
    STEP_NS: Final = 1_000_000

    def __init__(self, random: random.Random, *, last: int = 0) -> None:
        self._random = random
        self.last = last

    def next(self, block_time_ns: int) -> int | None:
        """Return a new timestamp for this latest block time, or None when none is left until a later block."""
        timestamp = block_time_ns + self.TIMEOUT_NS + self._random.randrange(_SECOND)
        limit = block_time_ns + self.LIMIT_NS
        if timestamp <= self.last <= limit:
            timestamp = self.last + 1 + self._random.randrange(self.STEP_NS)
        if timestamp > limit:
            return None
        self.last = timestamp
        return timestamp


def _auth_info(public_key: bytes, gas_limit: int) -> bytes:
    key = cosmos_pb2.PubKey(key=public_key).SerializeToString()
    # The sequence of an unordered transaction is 0, which is not encoded.
    signer = cosmos_pb2.SignerInfo(
        public_key=cosmos_pb2.Any(type_url=PUBLIC_KEY_TYPE_URL, value=key),
        mode_info=cosmos_pb2.ModeInfo(single=cosmos_pb2.ModeInfo.Single(mode=cosmos_pb2.SIGN_MODE_DIRECT)),
    )
    fee = cosmos_pb2.Fee(gas_limit=gas_limit)
    return cosmos_pb2.AuthInfo(signer_infos=[signer], fee=fee).SerializeToString()


def _field_size(length: int) -> int:
    """Return how many bytes a field takes with its one-byte tag and its length."""
    return 1 + max(1, (length.bit_length() + 6) // 7) + length


def _any_size(type_url: str, length: int) -> int:
    return _field_size(len(type_url)) + _field_size(length)
