"""What stands in the hand-over stream."""

from redis.asyncio import Redis

from shared.contract.events import EVENT_FIELD, STREAM


async def recorded_events(redis: Redis) -> list[bytes]:
    """The events in the stream, oldest first, as the bytes that were added, group by group."""
    entries = await redis.xrange(STREAM) or []
    groups = [(fields or {})[EVENT_FIELD.encode()] for _, fields in entries]
    assert all(isinstance(group, bytes) for group in groups)
    return [event for group in groups if isinstance(group, bytes) for event in group.split(b"\n")]
