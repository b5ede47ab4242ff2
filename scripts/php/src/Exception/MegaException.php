<?php

declare(strict_types=1);

namespace Mega\Exception;

/** Everything that this package throws. */
interface MegaException extends \Throwable
{
    /**
     * Whether the message may have gone out all the same, or may still go out. Where it may, repeat it only under the id it had;
     * where it cannot, repeating it never delivers twice.
     */
    public function mayBeSent(): bool;
}
