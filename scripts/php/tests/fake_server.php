<?php

// A mega that does what a script says. Prints its address, and at the end of the script a line of JSON for each frame
// it has read. The script is a list of connections, each a list of steps:
//   {"read": N}                    reads N frames
//   {"answer": [[I, CODE, TEXT]]}  answers the I-th frame read on this connection, counted from 0; in one write
//   {"bytes": HEX, "each": N}      writes bytes as they are, N at a time with a pause in between
//   {"mute": true}                 reads nothing more until the client goes away
//   {"reset": true}                closes so that the client gets a reset
//   {"refuse": SECONDS}            closes the listening socket and opens it again after so long
// After its steps a connection is closed; after the last one the listening socket is, too.

declare(strict_types=1);

$script = json_decode($argv[1], true, 16, JSON_THROW_ON_ERROR);
$listen = static fn (string $address) => stream_socket_server("tcp://$address", $n, $error) ?: exit("$error\n");
$server = $listen('127.0.0.1:0');
$address = stream_socket_get_name($server, false);

// Not before the end: nobody reads it while the client waits for an answer.
$said = '';
$say = static function (mixed $what) use (&$said): void {
    $said .= json_encode($what) . "\n";
};
$readAll = static function ($client, int $length): ?string {
    $bytes = '';
    while (strlen($bytes) < $length) {
        $more = @fread($client, $length - strlen($bytes));
        if ($more === false || $more === '') {
            return null;
        }
        $bytes .= $more;
    }
    return $bytes;
};

fwrite(STDOUT, json_encode($address) . "\n");
fflush(STDOUT);
foreach ($script as $number => $steps) {
    $client = stream_socket_accept($server, 30) ?: exit("nobody came\n");
    stream_set_timeout($client, 30);
    $opaques = [];
    $reset = false;
    foreach ($steps as $step) {
        for ($i = 0; $i < ($step['read'] ?? 0); $i++) {
            $length = $readAll($client, 4);
            $frame = $length === null ? null : $readAll($client, unpack('N', $length)[1]);
            if ($frame === null) {
                $say(['connection' => $number, 'gone' => true]);
                continue 3;
            }
            $headerLength = unpack('N', $frame)[1];
            $opaque = unpack('N', $frame, 4 + $headerLength)[1];
            $opaques[] = $opaque;
            $say([
                'connection' => $number,
                'header' => substr($frame, 4, $headerLength),
                'opaque' => $opaque,
                'body' => substr($frame, 12 + $headerLength),
            ]);
        }
        $answers = '';
        foreach ($step['answer'] ?? [] as [$index, $code, $text]) {
            $header = "result $code";
            $frame = pack('N', strlen($header)) . $header . pack('N', $opaques[$index])
                . pack('N', strlen($text)) . $text;
            $answers .= pack('N', strlen($frame)) . $frame;
        }
        $answers .= hex2bin($step['bytes'] ?? '');
        foreach ($answers === '' ? [] : str_split($answers, $step['each'] ?? strlen($answers)) as $part) {
            if (@fwrite($client, $part) === false) {
                break;
            }
            if (isset($step['each'])) {
                usleep(1000);
            }
        }
        if (isset($step['mute'])) {
            while (stream_get_meta_data($client)['eof'] === false) {
                usleep(1000);
                $none = null;
                $read = [$client];
                // Only the end is looked for: what the client writes stays in its kernel.
                if (stream_select($read, $none, $none, 0) && @stream_socket_recvfrom($client, 1, STREAM_PEEK) === '') {
                    break;
                }
            }
        }
        if (isset($step['refuse'])) {
            fclose($server);
            fclose($client);
            usleep((int) ($step['refuse'] * 1e6));
            $server = $listen($address);
        }
        $reset = $reset || isset($step['reset']);
    }
    if (is_resource($client)) {
        if ($reset) {
            socket_set_option(socket_import_stream($client), SOL_SOCKET, SO_LINGER, ['l_onoff' => 1, 'l_linger' => 0]);
        }
        fclose($client);
    }
}
fwrite(STDOUT, $said);
