<?php

declare(strict_types=1);

namespace Mega;

/**
 * The bytes of requests and answers; no socket, no clock. All integers are unsigned 32-bit big-endian:
 *
 *     frame := pack_len  header_len  header  opaque  [ body_len  body ]
 *
 * @internal
 */
final class Wire
{
    /** Bytes of each length and of opaque. */
    private const WORD = 4;

    /** @param string|null $body null leaves out body and body_len, as tset does */
    public static function request(string $header, int $opaque, ?string $body): string
    {
        $frame = pack('N', strlen($header)) . $header . pack('N', $opaque);
        if ($body !== null) {
            $frame .= pack('N', strlen($body)) . $body;
        }
        return pack('N', strlen($frame)) . $frame;
    }

    /**
     * Takes the whole frames off the head of what was received.
     *
     * @return list<Answer>
     * @throws Garbled at a frame that is none, when those before it have been taken off
     */
    public static function takeAnswers(string &$received, int $maxFrame): array
    {
        $answers = [];
        $at = 0;
        try {
            while (strlen($received) - $at >= self::WORD) {
                $size = self::WORD + self::integer($received, $at);
                if ($size > $maxFrame) {
                    throw new Garbled("an answer of $size bytes was announced, maxFrame is $maxFrame");
                }
                if (strlen($received) - $at < $size) {
                    break;
                }
                $answers[] = self::answer(substr($received, $at + self::WORD, $size - self::WORD));
                $at += $size;
            }
        } catch (Garbled $garbled) {
            if ($answers === []) {
                throw $garbled;
            }
        }
        if ($at > 0) {
            $received = substr($received, $at);
        }
        return $answers;
    }

    private static function answer(string $payload): Answer
    {
        // The length of the header, opaque and the length of the message at least.
        $room = strlen($payload) - 3 * self::WORD;
        $headerLength = $room < 0 ? 0 : self::integer($payload, 0);
        if ($room < 0 || $headerLength > $room) {
            throw new Garbled('an answer is shorter than its parts');
        }
        $header = substr($payload, self::WORD, $headerLength);
        if (preg_match('/^result (-?[0-9]{1,9})( |$)/D', $header, $code) !== 1) {
            throw new Garbled('an answer is not a result');
        }
        $opaqueAt = self::WORD + $headerLength;
        if (self::integer($payload, $opaqueAt + self::WORD) !== $room - $headerLength) {
            throw new Garbled('the message of an answer has not the length it announces');
        }
        $message = substr($payload, $opaqueAt + 2 * self::WORD);
        return new Answer((int) $code[1], self::integer($payload, $opaqueAt), $message);
    }

    private static function integer(string $bytes, int $at): int
    {
        return unpack('N', $bytes, $at)[1];
    }
}
