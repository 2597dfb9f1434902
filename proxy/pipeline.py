"""The one way: policies top to bottom, the answer, filters bottom to top, one end.

One coroutine owns a call from its first byte to its last; policies are asked at fixed points and never
own the flow.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Final

import orjson

from policies.base import ChunkFilter, Policy
from proxy.call import Call, Outcome, Reply
from proxy.chunk import Chunk
from proxy.errors import ApiError
from proxy.ids import new_id
from proxy.shape import Fold, unfold
from proxy.store.base import Claim, Hold, StoreUnavailable
from proxy.telemetry.log import describe


class Step:
    """One policy, and which of its hooks it, or its class, overrides: what it leaves out costs nothing."""

    __slots__ = ("claims", "counts", "enforce", "name", "policy", "replies", "requests", "watches")

    def __init__(self, policy: Policy[Any]) -> None:
        cls = type(policy)
        self.policy = policy
        self.name = policy.name
        self.enforce = policy.enforce
        self.requests = getattr(policy.on_request, "__func__", None) is not Policy.on_request
        self.claims = cls.claims is not Policy.claims
        self.replies = cls.on_reply is not Policy.on_reply
        self.watches = policy.changes_request and not policy.enforce
        """It would change the request, and must not."""
        self.counts: dict[str, list[float]] = {}
        """How often it decided what, since the metrics began."""


class PolicyFault(ApiError):
    """A policy raised something that is not an answer: its call is refused, nothing goes upstream."""

    def __init__(self, name: str) -> None:
        super().__init__(
            "policy_unavailable", f"The policy {name} failed; send the request again later.", retry_after=1.0
        )


# --- the way in -------------------------------------------------------------------------------------------


async def ask(call: Call, steps: Sequence[Step]) -> tuple[Reply | None, int]:
    """Ask each policy in order; return an answer that one of them gave, and how many policies stand above it.

    Raises:
        ApiError: a policy refused, failed (:class:`PolicyFault`), or the store is down and it is set to refuse.
    """
    if "template" in call.request.body:
        _check_template(call, steps)
    pending: list[tuple[Step, Sequence[Claim]]] = []
    for step in steps:
        if pending and not step.claims:
            await _admit(call, pending)
            pending = []
        if step.requests:
            try:
                reply = await (_unchanged(call, step) if step.watches else step.policy.on_request(call))
            except ApiError as error:
                _refused(call, step, error)
            except Exception as error:
                if step.enforce:
                    raise _fault(call, step, error) from error
                _decided(call, step, "fail")
            else:
                if reply is None:
                    if not step.claims:
                        _decided(call, step, "pass")
                elif step.enforce:
                    _decided(call, step, "answer")
                    if pending:
                        await _admit(call, pending)
                    return reply, steps.index(step)
                else:
                    _decided(call, step, "shadow_answer")
        if step.claims:
            try:
                claims = step.policy.claims(call)
            except ApiError as error:
                _refused(call, step, error)
                continue
            except Exception as error:
                raise _fault(call, step, error) from error
            if claims:
                pending.append((step, claims))
            else:
                _decided(call, step, "pass")
    if pending:
        await _admit(call, pending)
    return None, len(steps)


def _check_template(call: Call, steps: Sequence[Step]) -> None:
    """Refuse a template that nobody would fill in: sent on, it would be a request without its prompt."""
    if call.request.body["template"] is not None and not any(s.name == "template" and s.enforce for s in steps):
        raise ApiError(
            "invalid_request",
            "This sidecar serves no templates: its llm.yml lists no `template` policy; send `messages` instead.",
            param="template",
        )


async def _unchanged(call: Call, step: Step) -> Reply | None:
    """Ask a policy that only watches, whatever its author thought of, and undo what it did to the call."""
    body, route = orjson.dumps(call.request.body), list(call.route)
    try:
        return await step.policy.on_request(call)
    finally:
        call.request.body = orjson.loads(body)
        call.route = route


async def _admit(call: Call, pending: list[tuple[Step, Sequence[Claim]]]) -> None:
    """Take the claims of adjacent policies in one atomic step."""
    claims: list[Claim] = []
    for step, some in pending:
        if not step.enforce:
            for claim in some:
                claim.enforce = False
        claims += some
    hold = Hold(new_id(), claims)
    call.claimed.append(hold)
    try:
        verdict = await call.runtime.store.admit(hold)
    except StoreUnavailable:
        _unadmitted(call, pending)
        return
    states, refused = verdict.states, verdict.refused
    refusing: Step | None = None
    at = 0
    for step, some in pending:
        begin = at
        decision = "pass"
        for claim in some:
            if at == refused:
                refusing = step
            if states[at].refused and not claim.enforce:
                decision = "shadow_refuse"
            at += 1
        if step is not refusing:
            _decided(call, step, decision)
        step.policy.admitted(call, some, states[begin:at])
    if refusing is not None:
        call.claimed.remove(hold)
        raise _refusal(call, refusing, refusing.policy.refusal(call, claims[refused], states[refused]))


def _unadmitted(call: Call, pending: list[tuple[Step, Sequence[Claim]]]) -> None:
    """Decide without the store, as each policy's ``store_down`` says."""
    for step, some in pending:
        call.runtime.metrics.degraded.inc((step.name,))
        if step.policy.store_down == "refuse" and any(claim.enforce for claim in some):
            call.notes["unadmitted"] = True
            _decided(call, step, "store_down")
            raise ApiError(
                "store_unavailable", "The limits cannot be checked at the moment; try again shortly.", retry_after=1.0
            ) from None
        _decided(call, step, "pass")


def _refused(call: Call, step: Step, error: ApiError) -> None:
    """Count a refusal; raise it unless the policy only watches."""
    if step.enforce:
        raise _refusal(call, step, error)
    _decided(call, step, "shadow_refuse", error)


def _refusal(call: Call, step: Step, error: ApiError) -> ApiError:
    _decided(call, step, "refuse", error)
    call.log["policy"] = step.name
    return error


def _fault(call: Call, step: Step, error: Exception) -> PolicyFault:
    _decided(call, step, "fail")
    call.log["policy"] = step.name
    call.runtime.log.error(
        "policy_failed", extra={"fields": {"policy": step.name, "request_id": call.id, **describe(error)}}
    )
    return PolicyFault(step.name)


def _decided(call: Call, step: Step, decision: str, error: ApiError | None = None) -> None:
    count = step.counts.get(decision)
    if count is None:
        count = step.counts[decision] = call.runtime.metrics.decisions.cell((step.name, decision))
    count[0] += 1
    if decision == "shadow_refuse" or decision == "shadow_answer":
        call.log.setdefault("shadow", []).append(step.name)
    if call.explain is not None:
        row: dict[str, Any] = {"policy": step.name, "decision": decision}
        if error is not None:
            row["code"] = error.code
            row["message"] = error.message
        call.explain.append(row)


# --- the way back -----------------------------------------------------------------------------------------


class Filters:
    """The reply filters of one call, bottom of the list first."""

    __slots__ = ("_call", "_chain", "_stopped")

    def __init__(self, call: Call, steps: Sequence[Step]) -> None:
        self._call = call
        self._stopped: ChunkFilter | None = None
        self._chain: list[tuple[Step, ChunkFilter]] = []
        for step in reversed(steps):
            if not step.replies:
                continue
            try:
                found = step.policy.on_reply(call)
            except ApiError:
                raise
            except Exception as error:
                raise _fault(call, step, error) from error
            if found is not None:
                self._chain.append((step, found if step.enforce else Shadow(call, step, found)))

    def __bool__(self) -> bool:
        return bool(self._chain)

    def below(self, audience: Any) -> Filters | None:
        """Return the filters up to ``audience`` if one above it stopped the reply: what the others still get.

        None if one below stopped it, which ends the answer for all.
        """
        chain = self._chain
        at = next((i for i, (_, one) in enumerate(chain) if one is audience), -1)
        if at < 0 or not any(one is self._stopped for _, one in chain[at + 1 :]):
            return None
        rest = Filters(self._call, ())
        rest._chain = chain[: at + 1]
        return rest

    def feed(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """Return what the client gets for ``chunks``."""
        for step, one in self._chain:
            chunks = self._through(step, one, chunks)
        return chunks

    def _through(self, step: Step, one: ChunkFilter, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        out: list[Chunk] = []
        try:
            for chunk in chunks:
                out.extend(one.feed(chunk))
        except ApiError as error:
            self._stopped = one
            raise _refusal(self._call, step, error) from None
        except Exception as error:
            self._stopped = one
            raise _fault(self._call, step, error) from error
        return out

    def flush(self) -> Sequence[Chunk]:
        """Return what the filters held back, each one's remainder passed through those above it."""
        chunks: Sequence[Chunk] = ()
        for step, one in self._chain:
            chunks = self._through(step, one, chunks)
            try:
                chunks = [*chunks, *one.flush()]
            except ApiError as error:
                raise _refusal(self._call, step, error) from None
            except Exception as error:
                raise _fault(self._call, step, error) from error
        return chunks


class Shadow:
    """A filter in shadow mode: it sees copies, and nothing it does reaches the client."""

    __slots__ = ("_call", "_dead", "_inner", "_step")

    def __init__(self, call: Call, step: Step, inner: ChunkFilter) -> None:
        self._call = call
        self._step = step
        self._inner = inner
        self._dead = False

    def _quietly(self, run: Any) -> None:
        if self._dead:
            return
        try:
            for _ in run():
                pass
        except ApiError as error:
            self._dead = True
            _decided(self._call, self._step, "shadow_refuse", error)
        except Exception:
            self._dead = True
            _decided(self._call, self._step, "fail")

    def feed(self, chunk: Chunk) -> Iterable[Chunk]:
        copy = Chunk(orjson.loads(chunk.encode()), whole=chunk.whole)
        self._quietly(lambda: self._inner.feed(copy))
        return (chunk,)

    def flush(self) -> Iterable[Chunk]:
        self._quietly(self._inner.flush)
        return ()


class Replayed:
    """A policy's own answer as a source: batches of chunks in the form that the client asked for."""

    __slots__ = ("_held", "_iterator", "_sync", "waited", "whole")

    def __init__(self, reply: Reply, *, whole: bool) -> None:
        source: Any = reply.source
        self.whole = whole
        self.waited = 0.0
        self._held: Sequence[Chunk] | None = None
        self._sync: Iterator[Any] | None = None
        self._iterator: AsyncIterator[Any] | None = None
        if whole and type(source) is tuple and len(source) == 1 and source[0].whole:
            self._held = source  # what is wanted, as it is wanted
        elif hasattr(source, "__aiter__"):
            self._iterator = source.__aiter__()
        else:
            self._sync = iter(source)

    async def _some(self) -> Sequence[Chunk] | None:
        found: Any = None
        if self._sync is not None:
            found = next(self._sync, None)
        elif self._iterator is not None:
            try:
                found = await self._iterator.__anext__()
            except StopAsyncIteration:
                return None
        return found if found is None or type(found) is list else (found,)

    def held(self) -> Sequence[Chunk] | None:
        """Return a whole answer that is there already, if the client asked for one."""
        held, self._held = self._held, None
        return held

    async def next(self) -> Sequence[Chunk] | None:
        """Return the next batch, None at the end."""
        some = self.held() or await self._some()
        if some is None:
            return None
        if not self.whole:
            if some and some[0].whole:
                return [piece for chunk in some for piece in unfold(chunk)]
            return some
        if some and some[0].whole:
            return some
        fold = Fold()
        while some is not None:
            for chunk in some:
                fold.feed(chunk)
            some = await self._some()
        return (fold.whole(),)

    def settle(self) -> None:
        return

    def fail(self, error: ApiError) -> None:
        self.abort()

    def abort(self) -> None:
        """Stop listening; a generator's ``finally`` runs."""
        if self._iterator is not None and inspect.isasyncgen(self._iterator):
            import asyncio

            # `aclose` of a generator that waits for nothing ends at once; the task only carries it.
            task = asyncio.ensure_future(self._iterator.aclose())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())


def settle_claims(call: Call, outcome: Outcome) -> None:
    """Settle every hold of the call to the truth, and put the call into the usage ledger."""
    runtime = call.runtime
    record: Any = runtime.usage_record(call, outcome)
    if not call.claimed:
        runtime.store.record(record)
        return
    tokens = outcome.usage.total
    cost = outcome.cost or 0
    for hold in call.claimed:
        actual = [tokens if claim.kind in _TOKENS else cost if claim.kind == "money" else 0 for claim in hold.claims]
        runtime.store.settle(hold, actual, record)
        record = None


_TOKENS: Final = frozenset(("tokens", "quota"))


def build_steps(policies: Sequence[Policy[Any]]) -> tuple[Step, ...]:
    """Return the running order."""
    return tuple(Step(policy) for policy in policies)
