"""The jobs as Celery tasks. `python celery_jobs.py N` enqueues N of them."""

import os
import sys

from celery import Celery

from reversal import reverse

app = Celery("celery_jobs", broker=os.environ["AMQP_URL"])
# Without the first one a worker that dies loses its jobs; the rest are Celery's defaults: a durable classic queue, four jobs
# prefetched for each process, no results kept.
app.conf.update(task_acks_late=True, task_ignore_result=True, task_default_queue="bench-celery")


@app.task(name="job")
def job(number):
    reverse("celery", number)


if __name__ == "__main__":
    for number in range(int(sys.argv[1])):
        job.delay(number)
