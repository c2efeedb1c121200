"""What stands in the hand-over stream."""

from redis.asyncio import Redis

from shared.events import EVENT_FIELD, STREAM


async def recorded_events(redis: Redis) -> list[bytes]:
    """The events in the stream, oldest first, as the bytes that were added."""
    entries = await redis.xrange(STREAM) or []
    events = [(fields or {})[EVENT_FIELD.encode()] for _, fields in entries]
    assert all(isinstance(event, bytes) for event in events)
    return [bytes(event) for event in events if isinstance(event, bytes)]
