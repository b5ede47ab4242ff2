<?php
// Goes away before its results come: its messages are delivered all the same.
require __DIR__ . '/mega.php';
[, $port, $key] = $argv;
for ($i = 1; $i <= 50; $i++) {
    $mega = new Mega($port);
    $mega->push($i, "gone-push-$i", $key, null);
    fclose($mega->socket);
}
// WeChat is slow, so no result comes before this client has left: one that closes with results
// unread makes its own kernel throw away what it has not sent yet.
$mega = new Mega($port);
for ($i = 1; $i <= 50; $i++) {
    $mega->send($i, "gone-send-$i", $key, null);
}
fclose($mega->socket);
echo "ok\n";
