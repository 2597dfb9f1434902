"""Policies around a cache: they change, refuse and fail as the request's ``user`` asks (a field no key holds)."""

from __future__ import annotations

import asyncio

from policies.base import Policy, PolicyConfig, Refused


def asked(call):
    """Return what the caller wants to happen to its own call."""
    return call.request.body.get("user") or ""


class Stamp(Policy):
    """Write the caller's `user` behind every piece of content, in place."""

    def on_reply(self, call):
        mark = asked(call)
        if not mark:
            return None

        class Filter:
            def feed(self, chunk):
                for slot in chunk.texts():
                    if slot.kind == "content" and slot.text:
                        slot.text = f"{slot.text}<{mark}>"
                return (chunk,)

            def flush(self):
                return ()

        return Filter()


class Trips(Policy):
    """Refuse, fail or forbid keeping, at the point that `user` names."""

    async def on_request(self, call):
        if asked(call) == "no_store":
            call.no_store("asked for")
        if asked(call) == f"refuse-{type(self).__name__}":
            raise Refused(403, "not_you", "Not you.")
        if asked(call) == f"fault-{type(self).__name__}":
            raise RuntimeError("a fault")

    def on_reply(self, call):
        wish = asked(call)
        if wish not in [f"{way}-{type(self).__name__}" for way in ("stop", "break", "late")]:
            return None

        class Filter:
            seen = 0

            def feed(self, chunk):
                self.seen += bool(chunk.choices and not chunk.startup)
                if wish.startswith("late"):
                    return (chunk,)
                if self.seen == (1 if chunk.whole else 3):
                    if wish.startswith("stop"):
                        raise Refused(400, "bad_word", "The answer held a bad word.")
                    raise RuntimeError("a fault")
                return (chunk,)

            def flush(self):
                if wish.startswith("late"):
                    raise Refused(400, "bad_word", "The answer held a bad word.")
                return ()

        return Filter()


class Below(Trips):
    """The same, to stand below the cache."""


class Rewrites(Policy):
    """A policy that changes requests: a word for another."""

    changes_request = True

    class Config(PolicyConfig):
        to: str = "x"

    async def on_request(self, call):
        for slot in call.request.texts():
            slot.text = slot.text.replace("REPLACE", self.config.to)


class Strikes(Policy):
    """Take the first target out of the route, below the cache."""

    async def on_request(self, call):
        first = call.route[0]
        call.strike(lambda target: target is not first)


class Hesitates(Policy):
    """Refuse who asks for it, after a moment in which others have come to wait."""

    async def on_request(self, call):
        if asked(call) == "hesitate":
            await asyncio.sleep(0.4)
            raise Refused(403, "not_you", "Not you.")
