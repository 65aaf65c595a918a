"""The jobs as Dramatiq actors. `python dramatiq_jobs.py N` enqueues N of them."""

import os
import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from reversal import reverse

# Confirmed, as Clawback's own publishing; the rest are Dramatiq's defaults: a durable classic queue, acknowledged after the job.
dramatiq.set_broker(RabbitmqBroker(url=os.environ["AMQP_URL"], confirm_delivery=True))


@dramatiq.actor(queue_name="bench-dramatiq")
def job(number):
    reverse("dramatiq", number)


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        job.send(number)
