"""What the commands do: training, evaluation, single images, reports and the web page. Not installed."""
