<?php

declare(strict_types=1);

namespace Mega;

/**
 * One TCP connection and its buffers. Reads before it writes, so that nothing is written to a peer that is known
 * to be gone; counts what the kernel has taken, so that a lost connection tells what the peer can have. Waits only
 * where it is asked to.
 *
 * @internal
 */
final class Connection
{
    /** Bytes read or written at once. */
    private const BLOCK = 1 << 16;

    private string $in = '';
    private string $out = '';

    /** Bytes of $out that are written, and of everything ever put. */
    private int $outWritten = 0;
    private int $written = 0;
    private int $put = 0;

    /** Why nothing can be written any more; what has been answered before is still read. */
    private ?string $deaf = null;

    /** Why nothing will be read any more. */
    private ?Lost $ended = null;

    /** @param resource $stream */
    private function __construct(private $stream, private readonly int $maxFrame)
    {
        stream_set_blocking($stream, false);
        stream_set_read_buffer($stream, 0);
        stream_set_chunk_size($stream, self::BLOCK);
    }

    /** @throws Lost */
    public static function open(string $address, Options $options): self
    {
        $context = stream_context_create(['socket' => ['tcp_nodelay' => true]]);
        [$stream, $warning] = self::quietly(static function () use ($address, $options, $context, &$error) {
            return stream_socket_client(
                "tcp://$address",
                $number,
                $error,
                $options->connectTimeout,
                STREAM_CLIENT_CONNECT,
                $context
            );
        });
        if ($stream === false) {
            throw new Lost('cannot connect: ' . ($error ?: $warning ?? 'no reason is given'));
        }
        return new self($stream, $options->maxFrame);
    }

    /** Where the frame ends among all bytes of this connection. */
    public function put(string $frame): int
    {
        $this->out .= $frame;
        return $this->put += strlen($frame);
    }

    /** Whether the kernel has taken everything up to there: a frame that is not whole is none. */
    public function hasWritten(int $end): bool
    {
        return $end <= $this->written;
    }

    /**
     * Waits until something can be read or written, at most so long, and reads and writes it.
     *
     * @return list<Answer>
     * @throws Lost when there will be no more answers
     */
    public function exchange(float $seconds): array
    {
        if ($this->ended === null) {
            [$readable, $writable] = $this->select($seconds);
            if ($readable) {
                $this->read();
            }
            if ($writable && $this->ended === null) {
                $this->write();
            }
        }
        $answers = Wire::takeAnswers($this->in, $this->maxFrame);
        if ($answers === [] && $this->ended !== null) {
            throw $this->ended;
        }
        return $answers;
    }

    public function close(): void
    {
        fclose($this->stream);
    }

    /** @return array{bool, bool} whether it can be read and written */
    private function select(float $seconds): array
    {
        $read = [$this->stream];
        $write = $this->out === '' || $this->deaf !== null ? [] : [$this->stream];
        $microseconds = (int) ceil(max($seconds, 0.0) * 1e6);
        [$ready, $warning] = self::quietly(static function () use (&$read, &$write, $microseconds) {
            $except = null;
            return stream_select($read, $write, $except, intdiv($microseconds, 1000000), $microseconds % 1000000);
        });
        if ($ready === false) {
            // A signal has interrupted it (EINTR is 4): its time is not over.
            if ($warning !== null && str_contains($warning, '[4]')) {
                return [false, false];
            }
            throw new Garbled('cannot wait for answers: ' . ($warning ?? 'no reason is given'));
        }
        return [$read !== [], $write !== []];
    }

    private function read(): void
    {
        [$bytes, $warning] = self::quietly(fn () => fread($this->stream, self::BLOCK));
        if (is_string($bytes) && $bytes !== '') {
            $this->in .= $bytes;
        } elseif ($bytes === false || stream_get_meta_data($this->stream)['eof']) {
            $this->ended = new Lost($this->deaf ?? $warning ?? 'it was closed by the other side');
        }
    }

    private function write(): void
    {
        $part = substr($this->out, $this->outWritten, self::BLOCK);
        [$bytes, $warning] = self::quietly(fn () => fwrite($this->stream, $part));
        if ($bytes === false) {
            $this->deaf = $warning ?? 'nothing can be written any more';
            return;
        }
        $this->written += $bytes;
        $this->outWritten += $bytes;
        // Not at each write: what is left would be copied each time.
        if ($this->outWritten * 2 >= strlen($this->out)) {
            $this->out = substr($this->out, $this->outWritten);
            $this->outWritten = 0;
        }
    }

    /**
     * Network functions tell why they fail in a warning only, and an application's error handler may throw at it.
     *
     * @return array{mixed, string|null} the result and the warning
     */
    private static function quietly(callable $call): array
    {
        $warning = null;
        set_error_handler(static function (int $level, string $text) use (&$warning): bool {
            $warning = preg_replace('/^\w+\(\): /', '', $text);
            return true;
        });
        try {
            $result = $call();
        } finally {
            restore_error_handler();
        }
        return [$result, $warning];
    }
}
