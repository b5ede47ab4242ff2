<?php

declare(strict_types=1);

namespace Mega\Exception;

use Mega\Answer;
use Mega\Command;
use Mega\Refusal;

/** mega has answered, and not with 200. `getCode()` is the answer's code, `$answer` its text as it came. */
abstract class AnswerException extends \RuntimeException implements MegaException
{
    protected function __construct(
        string $message,
        protected readonly Command $command,
        int $code,
        public readonly string $answer,
        protected readonly bool $repeated,
    ) {
        parent::__construct($message, $code);
    }

    /**
     * @internal
     * @param string $what     the request in words
     * @param bool   $repeated whether it is the answer to a repeat, which says nothing of the first
     */
    public static function of(Command $command, string $what, Answer $answer, bool $repeated): self
    {
        $refusal = Refusal::of($answer);
        return match (true) {
            $answer->code === Answer::REJECTED => new RejectedException($command, $what, $answer, $repeated),
            $refusal !== null => new RefusedException($command, $what, $answer, $repeated, $refusal),
            default => new FailedException($command, $what, $answer, $repeated),
        };
    }
}
