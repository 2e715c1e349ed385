"""The settings as `django-admin startproject` writes them, and a table with files. Not a word about proxies or hosts."""

from inventory.settings import *  # noqa: F403

INSTALLED_APPS += ["sims"]  # noqa: F405
ROOT_URLCONF = "portal_urls"
MEDIA_URL = "/media/"
MEDIA_ROOT = BASE_DIR / "media"  # noqa: F405
