"""The copy in Redis of the roll-out in force, for when the history service does not answer."""

from pydantic import ValidationError
from redis.asyncio import Redis

from shared.contract.rollout import ROLLOUT_KEY, Rollout
from shared.redis import REDIS_ERRORS


async def remembered(redis: Redis) -> Rollout | None:
    """The roll-out that was in force last; None if Redis has none or does not answer."""
    try:
        copy = await redis.get(ROLLOUT_KEY)
        return None if copy is None else Rollout.model_validate_json(copy)
    except (*REDIS_ERRORS, ValidationError):
        return None
