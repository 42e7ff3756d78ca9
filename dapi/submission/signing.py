"""Signs for the chain that is followed, under the number that the signer's account has there."""

from __future__ import annotations

import re

from twisted.logger import Logger

from dapi.chain.keyring import SigningKey
from dapi.chain.queries import account_number
from dapi.chain.rpc import ChainRpc
from dapi.chain.transactions import DEFAULT_GAS_LIMIT, TransactionSigner
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.submission.problems import is_of_a_moved_network

_MAX_GAS = re.compile(r"tx gas limit (\d+) exceeds block max gas (\d+)")


class Signing:
    """Has the ``signer``, None until the account's number is known.

    ``gas_limit`` is that of each transaction: the one of the settings, or what the chain allows in a block.
    """

    log = Logger()

    def __init__(
        self,
        rpc: ChainRpc,
        key: SigningKey,
        participant_address: str,
        gas_limit: int = DEFAULT_GAS_LIMIT,
    ) -> None:
        self._rpc = rpc
        self.gas_limit = gas_limit
        self.key = key
        self.participant_address = participant_address
        self.signer: TransactionSigner | None = None
        self.account_number: int | None = None

    @property
    def is_granted(self) -> bool:
        """Whether the key is not the participant's own, and needs grants."""
        return self.key.address != self.participant_address

    async def refresh(self) -> None:
        """Ask for the account's number, and sign with it from now on; raises ChainError."""
        chain_id = (await self._rpc.status()).chain_id
        try:
            number = await account_number(self._rpc, self.key.address)
        except ChainRefusedError as error:
            if is_of_a_moved_network(error):
                raise
            problem = f"the signer's account {self.key.address}: {error.log}; if it does not exist, send coins to it"
            raise ChainUnavailableError(problem) from error
        self.account_number = number
        self.signer = TransactionSigner(self.key, chain_id, number, self.participant_address, self.gas_limit)

    async def lower_gas_limit(self, log: str) -> bool:
        """Sign with as much gas as the chain allows, if the refusal ``log`` (code 41) says how much that is.

        Return whether the transaction may pass when it is signed again. Raises ChainError.
        """
        found = _MAX_GAS.search(log)
        if found is None or not 0 < int(found[2]) < int(found[1]):
            return False
        allowed = int(found[2])
        if allowed < self.gas_limit:
            text = "the chain allows {allowed} gas in a block: transactions have this limit now, not {before}"
            self.log.warn(text, allowed=allowed, before=self.gas_limit)
            self.gas_limit = allowed
            await self.refresh()
        return True
