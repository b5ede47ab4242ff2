<?php

declare(strict_types=1);

namespace Mega;

use Mega\Exception\InvalidArgumentException;

/**
 * One message to one person. Whoever holds one knows that it can be written: words that would break the
 * frame's header, ids that mega would not take and data that is no JSON are refused here.
 */
final class Message
{
    /** The variables as JSON. */
    public readonly string $body;

    /**
     * @param array<int|string, scalar|null> $data the template's variables
     * @param string|null $id the message's own id, 1 to 32 of A-Z, a-z, 0-9, _ and -: under the same id mega and
     *                        WeChat take the same message once, so that a request whose answer was lost is repeated
     */
    public function __construct(
        public readonly string $openid,
        public readonly string $key,
        array $data = [],
        public readonly ?string $id = null,
    ) {
        self::checkWord('openid', $openid);
        self::checkWord('template key', $key);
        if ($id !== null && preg_match('/^[A-Za-z0-9_-]{1,32}$/D', $id) !== 1) {
            throw new InvalidArgumentException(
                'id ' . self::shown($id) . ': 1 to 32 characters of A-Z, a-z, 0-9, _ and -'
            );
        }
        try {
            $this->body = json_encode($data, JSON_THROW_ON_ERROR | JSON_UNESCAPED_SLASHES | JSON_UNESCAPED_UNICODE);
        } catch (\JsonException $error) {
            throw new InvalidArgumentException(
                "the data for $openid cannot be written as JSON: {$error->getMessage()} (text must be UTF-8)",
                0,
                $error
            );
        }
    }

    /** Words of a frame's header are told apart by spaces. */
    public static function checkWord(string $what, string $word): void
    {
        if ($word === '' || preg_match('/[\x00-\x20\x7f]/', $word) === 1) {
            throw new InvalidArgumentException(
                "$what " . self::shown($word) . ': must not be empty nor contain spaces or control characters'
            );
        }
    }

    private static function shown(string $text): string
    {
        $short = strlen($text) > 80 ? substr($text, 0, 80) . '...' : $text;
        return json_encode($short, JSON_INVALID_UTF8_SUBSTITUTE | JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES);
    }
}
