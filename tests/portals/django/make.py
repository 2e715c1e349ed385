"""Makes the project in the working directory: tables, and an administrator named `admin` with the password `admin`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

subprocess.run([sys.executable, "-m", "django", "startproject", "inventory", "."], check=True)
for source in Path(__file__).parent.iterdir():
    if source.name == "sims":
        shutil.copytree(source, source.name)
    elif source.name.startswith("portal_"):
        shutil.copy(source, source.name)

sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "portal_settings"
os.environ["DJANGO_SUPERUSER_PASSWORD"] = "admin"

import django  # noqa: E402
from django.core.management import call_command  # noqa: E402

django.setup()
call_command("makemigrations", "sims", verbosity=0)
call_command("migrate", verbosity=0)
call_command("createsuperuser", "--noinput", "--username=admin", "--email=admin@example.com", verbosity=0)
