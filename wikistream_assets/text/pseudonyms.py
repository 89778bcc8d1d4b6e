"""What Gold, failing keys, alerts and exports call an IP address; Spark's form of it is ``streams.edits.users``."""

import hmac


def address_pseudonym(address: str, user_key: bytes) -> str:
    """``ip-`` and the first 16 hexadecimal digits of the address's HMAC-SHA256 under the home's key."""
    return f"ip-{hmac.new(user_key, address.encode(), 'sha256').hexdigest()[:16]}"
