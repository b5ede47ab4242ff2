<?php
// Goes away before its results come: its messages are delivered all the same.
require __DIR__ . '/mega.php';
[, $port, $key] = $argv;
$mega = new Mega($port);
for ($i = 1; $i <= 50; $i++) {
    $mega->push($i, "gone-push-$i", $key, null);
    $mega->send($i, "gone-send-$i", $key, null);
}
fclose($mega->socket);
echo "ok\n";
