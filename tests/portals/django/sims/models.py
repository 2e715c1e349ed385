"""One table with a file in it, for the administration site to show."""

from django.db import models


class Sim(models.Model):
    label = models.CharField(max_length=100)
    datasheet = models.FileField(upload_to="datasheets", blank=True)

    def __str__(self):
        return self.label
