<?php
// A client as legacy PHP code has it: pack(), json_encode() and a stream socket.

class Mega
{
    public $socket;

    public function __construct($port)
    {
        $this->socket = @stream_socket_client("tcp://127.0.0.1:$port", $errno, $error, 5);
        if (!$this->socket) {
            throw new Exception("cannot connect: $error");
        }
        stream_set_timeout($this->socket, 20);
    }

    private static function pack($header, $opaque, $body)
    {
        $frame = pack('N', strlen($header)) . $header . pack('N', $opaque) . pack('N', strlen($body)) . $body;
        return pack('N', strlen($frame)) . $frame;
    }

    public function push($opaque, $openid, $key, $data)
    {
        @fwrite($this->socket, self::pack("push $openid $key", $opaque, json_encode($data)));
    }

    public function send($opaque, $openid, $key, $data)
    {
        fwrite($this->socket, self::pack("send $openid $key", $opaque, json_encode($data)));
    }

    private function read($length)
    {
        $bytes = '';
        while (strlen($bytes) < $length) {
            $more = @fread($this->socket, $length - strlen($bytes));
            if ($more === false || $more === '') {
                throw new Exception('the connection ended');
            }
            $bytes .= $more;
        }
        return $bytes;
    }

    public function result()
    {
        $length = unpack('N', $this->read(4))[1];
        $frame = $this->read($length);
        $headerLength = unpack('N', $frame)[1];
        $header = explode(' ', substr($frame, 4, $headerLength));
        $opaque = unpack('N', substr($frame, 4 + $headerLength, 4))[1];
        $body = substr($frame, 12 + $headerLength);
        return ['code' => (int) $header[1], 'opaque' => $opaque, 'message' => $body];
    }
}

function expect($what, $got, $wanted)
{
    if ($got !== $wanted) {
        fwrite(STDERR, "$what: got " . var_export($got, true) . ', wanted ' . var_export($wanted, true) . "\n");
        exit(1);
    }
}
