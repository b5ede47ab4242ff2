<?php
// Two clients at the same time: neither gets what is the other's.
require __DIR__ . '/mega.php';
[, $port, $key] = $argv;
$a = new Mega($port);
$b = new Mega($port);
for ($i = 1; $i <= 200; $i++) {
    $a->push($i, "a-$i", $key, null);
    $b->send(100000 + $i, "b-$i", $key, ['first' => 'b']);
    expect('b', $b->result(), ['code' => 200, 'opaque' => 100000 + $i, 'message' => '']);
    expect('a', $a->result(), ['code' => 200, 'opaque' => $i, 'message' => '']);
}
echo "ok\n";
