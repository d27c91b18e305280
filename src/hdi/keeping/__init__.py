"""What keeps a store up to date: jobs that go on, by hand or by their cron lines, and days that a vendor changed."""
